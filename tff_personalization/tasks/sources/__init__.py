"""Client-data sources: `load` turns the value of --client_data into a `WriterArchive`."""

import dataclasses
import importlib
import os
from collections.abc import Callable

from tff_personalization import errors
from tff_personalization.tasks import client_data

# The first bytes of every SQLite database file.
_SQLITE_MAGIC = b"SQLite format 3\0"


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """What a source may need to know; each source uses what concerns it.

    Attributes:
        client_data: the value of --client_data: the name of a source, or the path of a file.
        num_classes: 62 (digits and letters) or 10 (digits alone).
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


Load = Callable[[SourceOptions], client_data.WriterArchive]


def _load_of(module: str) -> Load:
    """The `load` of a module of this package, which is imported when it is first called."""

    def load_lazily(options: SourceOptions) -> client_data.WriterArchive:
        return importlib.import_module(f"{__name__}.{module}").load(options)

    return load_lazily


# A new source is a module of this package with `load(options) -> WriterArchive` and a line here.
SOURCES: dict[str, Load] = {
    "handwriting": _load_of("handwriting"),
    "digits": _load_of("digits"),
    "tff": _load_of("tff_emnist"),
}

_FILE_SOURCES: dict[str, Load] = {
    ".npz": _load_of("npz_archive"),
    **dict.fromkeys((".sqlite", ".sqlite3", ".db"), _load_of("sqlite")),
}


def load(options: SourceOptions) -> client_data.WriterArchive:
    """The client data that `options.client_data` names, with at most `options.num_classes` classes.

    With 10 classes only the digits are kept, and the writers who have none drop out. A client may have no train
    example (it cannot be personalized for) or no test example (it cannot be judged).

    Raises:
        UserError: if there is no such source or file, if the file is malformed, or if nothing remains.
    """
    archive = _find(options.client_data)(options)
    if len(archive.classes) > options.num_classes:
        kept_classes = archive.classes[: options.num_classes]
        archive = archive.select(archive.labels < options.num_classes, classes=kept_classes)
    if archive.is_test.all():
        raise errors.UserError(
            f"--client_data={options.client_data} has no train example of the first {options.num_classes} classes: "
            "choose other client data or another number of classes."
        )
    return archive


def _find(name: str) -> Load:
    """The source for a value of --client_data."""
    if name in SOURCES:
        return SOURCES[name]
    alternatives = f"use {', '.join(SOURCES)}, or the path of an existing .npz or .sqlite file."
    if not os.path.isfile(name):
        what = "is a directory" if os.path.isdir(name) else "is neither a known source nor an existing file"
        raise errors.UserError(f"--client_data={name} {what}: {alternatives}")
    extension = os.path.splitext(name)[1].lower()
    if is_sqlite(name):
        return _FILE_SOURCES[".sqlite"]
    if extension in _FILE_SOURCES:
        return _FILE_SOURCES[extension]
    raise errors.UserError(f"--client_data={name} is neither an .npz archive nor an SQLite database: {alternatives}")


def is_sqlite(name: str) -> bool:
    """Whether a value of --client_data is the path of a file that is read as an SQLite database."""
    extension = os.path.splitext(name)[1].lower()
    if name in SOURCES or not os.path.isfile(name):
        return False
    return _FILE_SOURCES.get(extension) is _FILE_SOURCES[".sqlite"] or (
        extension not in _FILE_SOURCES and _begins_as_sqlite(name)
    )


def _begins_as_sqlite(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    except OSError as error:
        raise errors.UserError(
            f"--client_data={path} cannot be read ({error.strerror}): check its permissions."
        ) from error
