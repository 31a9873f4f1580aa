"""Client-data sources: `load` turns the value of --client_data into an `Archive`."""

import dataclasses
import importlib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from tff_personalization import errors, homes, seeds
from tff_personalization.settings import Group, Setting
from tff_personalization.tasks import archives, parts
from tff_personalization.tasks.sources import forms


class Cached(Group):
    """The settings of sources that keep files."""

    cache_dir: Setting[str | None] = Setting(
        None,
        "Where to keep generated, downloaded and read data. Default: TFF's ~/.tff for tff, else the user's cache.",
        theme="data",
        kind=str,
    )


NUM_CLIENTS = Setting(
    120,
    "Number of writers that --client_data=handwriting generates, or of users that --task=stackoverflow reads.",
    theme="data",
    least=2,
)


class SomeClients(Cached):
    """The settings of a source with too many clients to read them all."""

    num_clients = NUM_CLIENTS


class Handwriting(Cached):
    """The settings of the synthetic writers."""

    num_clients = NUM_CLIENTS
    writer_heterogeneity = Setting(
        1.0, "How much the styles of generated writers differ; 0: not at all.", theme="data", least=0
    )


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """The input of a source. Each source uses only some of it.

    Attributes:
        client_data: the value of --client_data: the name of a source, or the path of a file or folder.
        num_classes: 62 (digits and letters), 10 (digits), or 90 (characters of text).
        seed: the run's seed.
        cache_dir: where downloads are kept; "" for the source's own default.
        needs_clients: whether data that does not name its examples' clients is refused.
        settings: the values of the source's own settings: a group of the type that its catalogue has for it.
    """

    client_data: str
    num_classes: int
    seed: int
    cache_dir: str
    needs_clients: bool = True
    settings: Any = dataclasses.field(default_factory=Group)


# What Python makes of bytes that are not UTF-8, such as in the name of a folder; it cannot be written.
_SURROGATE = re.compile("[\ud800-\udfff]")

Load = Callable[[SourceOptions], archives.Archive]


def _load_of(module: str, function: str = "load") -> Load:
    """A function of a module of this package. The module is imported at the first call."""

    def load_lazily(options: SourceOptions) -> archives.Archive:
        return getattr(importlib.import_module(f"{__name__}.{module}"), function)(options)

    return load_lazily


# A new source is a module of this package with `load(options) -> Archive` and a line here.
SOURCES: dict[str, Load] = {
    "handwriting": _load_of("handwriting"),
    "digits": _load_of("digits"),
    "tff": _load_of("tff_emnist"),
}


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """The sources of a task's client data.

    Attributes:
        named: sources by name, the default first.
        forms: sources by the form of a file or folder, see `forms`.
        settings: the settings that a source reads besides its name, by name or form; none if it is not listed.
    """

    named: Mapping[str, Load]
    forms: Mapping[str, Load]
    settings: Mapping[str, type[Group]]

    @property
    def default(self) -> str:
        return next(iter(self.named))

    @property
    def choices(self) -> str:
        """The values of --client_data, in words."""
        paths = [f"or the path of {', '.join(forms.WORDS[form] for form in self.forms)}"] if self.forms else []
        return ", ".join([*self.named, *paths])

    def settings_of(self, name: str) -> type[Group]:
        """The settings of the source for a value of --client_data."""
        name = str(homes.expand(name))
        if name in self.named or not os.path.exists(name):
            return self.settings.get(name, Group)
        return self.settings.get(forms.recognise(name) or "", Group)

    def find(self, name: str) -> Load:
        """The source for a value of --client_data. Raises UserError if there is none."""
        if name in self.named:
            return self.named[name]
        if not os.path.exists(name):
            raise errors.UserError(
                f"--client_data={name} is neither a source for the task nor an existing file or folder: use "
                f"{self.choices}."
            )
        form = forms.recognise(name)
        if form is not None and form in self.forms:
            return self.forms[form]
        if form is not None:
            raise errors.UserError(
                f"--client_data={name} is {forms.WORDS[form]}, which this task does not read: use {self.choices}."
            )
        what = "is a directory without data of a known form" if os.path.isdir(name) else "is a file of another kind"
        raise errors.UserError(f"--client_data={name} {what}: use {self.choices}.")


@dataclasses.dataclass(frozen=True)
class WithSettings:
    """A source with settings of its own: `load` finds their values in `options.settings`. Each becomes a flag."""

    load: Load
    settings: type[Group]


def own(**named: Load | WithSettings) -> Catalogue:
    """A catalogue of sources by name, the default first. `conversions` has functions that make an archive."""
    loads = {name: source.load if isinstance(source, WithSettings) else source for name, source in named.items()}
    return Catalogue(loads, {}, {name: of.settings for name, of in named.items() if isinstance(of, WithSettings)})


IMAGES = Catalogue(
    named=SOURCES,
    forms={
        forms.NPZ: _load_of("npz_archive"),
        forms.SQLITE: _load_of("sqlite"),
        forms.LEAF: _load_of("leaf"),
        forms.HDF5: _load_of("hdf5"),
        forms.PARQUET: _load_of("parquet"),
        forms.PICTURES: _load_of("pictures"),
        forms.CSV: _load_of("pictures", "load_csv"),
        forms.MATLAB: _load_of("emnist_files", "load_mat"),
        forms.IDX: _load_of("emnist_files", "load_idx"),
    },
    settings={
        "handwriting": Handwriting,
        "tff": Cached,
        **dict.fromkeys((form for form in forms.WORDS if form != forms.NPZ), Cached),
    },
)
TEXT = Catalogue(
    named={"plays": _load_of("plays"), "tff": _load_of("tff_shakespeare")},
    forms={
        forms.SQLITE: _load_of("snippets"),
        forms.LEAF: _load_of("leaf", "load_text"),
        forms.HDF5: _load_of("hdf5", "load_text"),
    },
    settings={"tff": Cached},
)

WORDS = Catalogue(named={"tff": _load_of("tff_stackoverflow")}, forms={}, settings={"tff": SomeClients})
CIFAR = Catalogue(named={"tff": _load_of("tff_cifar100")}, forms={}, settings={"tff": Cached})


def load(options: SourceOptions, catalogue: Catalogue = IMAGES) -> archives.Archive:
    """The client data that `options.client_data` names; of characters, at most `options.num_classes` classes.

    With 10 classes only the digits are kept, and writers without digits are dropped. A client may have no train example
    (then nothing can be personalized) or no test example (then it cannot be evaluated). `parts.resolve` splits clients
    that are in one part only.

    Raises:
        UserError: if there is no such source or file, if the file is malformed, or if nothing remains.
    """
    where = f"--client_data={options.client_data}"
    archive = catalogue.find(options.client_data)(options)
    if not isinstance(archive, archives.Archive):
        raise errors.UserError(
            f"{where}: its source gives {errors.described(archive)}; an Archive is "
            "expected: make one with tasks/conversions.py."
        )
    if options.needs_clients and not archive.has_clients:
        raise errors.UserError(
            f"{where} does not say which client has which examples (there is no array, "
            "column or folder 'writer'): add it, or make clients up with --partition=dirichlet."
        )
    if not_text := list(filter(_SURROGATE.search, archive.clients)):
        raise errors.UserError(f"{where}: client {not_text[0]!r}: its name is not UTF-8 text: rename it.")
    if broken := [client for client in archive.clients if "\r" in client]:
        raise errors.UserError(f"{where}: client {broken[0]!r}: its name has a carriage return: remove it.")
    for name in archive.clients:  # again for the forms whose names are text
        archives.client_name(where, name)
    if not len(archive.y):
        raise errors.UserError(
            f"{where} has no example of the {options.num_classes} classes: choose other client data."
        )
    archive = parts.resolve(archive, options.num_classes, seeds.generator(options.seed, "split"))
    if archive.is_test.all():
        raise errors.UserError(
            f"{where} has no train example of the first {options.num_classes} classes: "
            "choose other client data or another number of classes."
        )
    return archive
