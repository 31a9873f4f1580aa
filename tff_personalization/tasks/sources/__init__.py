"""Client-data sources: `load` turns the value of --client_data into an `Archive`."""

import dataclasses
import importlib
import os
from collections.abc import Callable, Mapping

from tff_personalization import errors
from tff_personalization.tasks import archives

# The first bytes of every SQLite database file.
_SQLITE_MAGIC = b"SQLite format 3\0"


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """What a source may need to know; each source uses what concerns it.

    Attributes:
        client_data: the value of --client_data: the name of a source, or the path of a file.
        num_classes: 62 (digits and letters), 10 (digits alone), or 90 (characters of text).
        seed: the run's seed.
        cache_dir: where downloads are kept; "" for the source's own default.
        num_clients: how many clients to generate, for a synthetic source.
        writer_heterogeneity: how much generated writers differ, for a synthetic source.
        progress: whether to show a progress bar while reading.
    """

    client_data: str
    num_classes: int
    seed: int
    cache_dir: str
    num_clients: int
    writer_heterogeneity: float
    progress: bool = True


Load = Callable[[SourceOptions], archives.Archive]


def _load_of(module: str) -> Load:
    """The `load` of a module of this package, which is imported when it is first called."""

    def load_lazily(options: SourceOptions) -> archives.Archive:
        return importlib.import_module(f"{__name__}.{module}").load(options)

    return load_lazily


def _sqlite_files(module: str) -> dict[str, Load]:
    return dict.fromkeys((".sqlite", ".sqlite3", ".db"), _load_of(module))


# A new source is a module of this package with `load(options) -> Archive` and a line here.
SOURCES: dict[str, Load] = {
    "handwriting": _load_of("handwriting"),
    "digits": _load_of("digits"),
    "tff": _load_of("tff_emnist"),
}


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Where a kind of client data may come from.

    Attributes:
        named: sources by name, the default first.
        files: sources by the extension of a file's name; one is ".sqlite".
        reads: the settings that a source reads, by name or extension.
    """

    named: Mapping[str, Load]
    files: Mapping[str, Load]
    reads: Mapping[str, tuple[str, ...]]

    @property
    def default(self) -> str:
        return next(iter(self.named))

    @property
    def choices(self) -> str:
        """The values of --client_data, in words."""
        kinds: dict[Load, str] = {}
        for extension, load in self.files.items():
            kinds.setdefault(load, extension)
        return f"{', '.join(self.named)}, or the path of an existing {' or '.join(kinds.values())} file"

    def settings_read(self, name: str) -> tuple[str, ...]:
        """The settings that the source for a value of --client_data reads."""
        return self.reads.get(".sqlite" if self.is_sqlite(name) else name, ())

    def is_sqlite(self, name: str) -> bool:
        """Whether a value of --client_data is the path of a file that is read as an SQLite database."""
        extension = os.path.splitext(name)[1].lower()
        if name in self.named or not os.path.isfile(name):
            return False
        return self.files.get(extension) is self.files[".sqlite"] or (
            extension not in self.files and _begins_as_sqlite(name)
        )

    def find(self, name: str) -> Load:
        """The source for a value of --client_data. Raises UserError if there is none."""
        if name in self.named:
            return self.named[name]
        if not os.path.isfile(name):
            what = "is a directory" if os.path.isdir(name) else "is neither a source for the task nor an existing file"
            raise errors.UserError(f"--client_data={name} {what}: use {self.choices}.")
        if self.is_sqlite(name):
            return self.files[".sqlite"]
        extension = os.path.splitext(name)[1].lower()
        if extension in self.files:
            return self.files[extension]
        raise errors.UserError(f"--client_data={name} is a file of another kind: use {self.choices}.")


IMAGES = Catalogue(
    named=SOURCES,
    files={".npz": _load_of("npz_archive"), **_sqlite_files("sqlite")},
    reads={
        "handwriting": ("num_clients", "writer_heterogeneity", "cache_dir"),
        "tff": ("cache_dir",),
        ".sqlite": ("cache_dir",),
    },
)
TEXT = Catalogue(
    named={"plays": _load_of("plays"), "tff": _load_of("tff_shakespeare")},
    files=_sqlite_files("snippets"),
    reads={"tff": ("cache_dir",)},
)


def load(options: SourceOptions, catalogue: Catalogue = IMAGES) -> archives.Archive:
    """The client data that `options.client_data` names, with at most `options.num_classes` classes.

    With 10 classes only the digits are kept, and the writers who have none drop out. A client may have no train
    example (it cannot be personalized for) or no test example (it cannot be judged).

    Raises:
        UserError: if there is no such source or file, if the file is malformed, or if nothing remains.
    """
    archive = catalogue.find(options.client_data)(options)
    if len(archive.classes) > options.num_classes:
        kept_classes = archive.classes[: options.num_classes]
        archive = archive.select(archive.y < options.num_classes, classes=kept_classes)
    if archive.is_test.all():
        raise errors.UserError(
            f"--client_data={options.client_data} has no train example of the first {options.num_classes} classes: "
            "choose other client data or another number of classes."
        )
    return archive


def _begins_as_sqlite(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    except OSError as error:
        raise errors.UserError(
            f"--client_data={path} cannot be read ({error.strerror}): check its permissions."
        ) from error
