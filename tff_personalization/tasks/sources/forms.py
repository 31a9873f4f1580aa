"""Recognizes the form of a file or folder of client data by its content, or else by its name."""

import gzip
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Iterator

from tff_personalization import errors

NPZ, SQLITE, LEAF, HDF5, PARQUET, PICTURES, CSV, MATLAB, IDX = (
    *("npz", "sqlite", "leaf", "hdf5", "parquet", "pictures", "csv", "matlab", "idx"),
)
WORDS = {
    NPZ: "a by-writer .npz archive",
    SQLITE: "an SQLite file of TFF's form (.sqlite)",
    LEAF: "a file or folder of LEAF's JSON",
    HDF5: "TFF's HDF5 files (.h5)",
    PARQUET: "a file or folder of Parquet or Arrow",
    PICTURES: "a folder of pictures, client/class/*.png",
    CSV: "a CSV file of paths, clients and labels",
    MATLAB: "EMNIST's MATLAB file (.mat)",
    IDX: "IDX files (…-images-idx3-ubyte)",
}
_MAGIC = {
    b"SQLite format 3\0": SQLITE,
    b"\x89HDF\r\n\x1a\n": HDF5,
    b"PAR1": PARQUET,
    b"ARROW1": PARQUET,
    b"\xff\xff\xff\xff": PARQUET,  # a stream of Arrow's
    b"MATLAB 5.0": MATLAB,
    b"\x93NUMPY": NPZ,
}
ENDINGS = {
    NPZ: (".npz",),
    SQLITE: (".sqlite", ".sqlite3", ".db"),
    LEAF: (".json",),
    HDF5: (".h5", ".hdf5"),
    PARQUET: (".parquet", ".arrow", ".feather"),
    PICTURES: (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm"),
    CSV: (".csv", ".tsv"),
    MATLAB: (".mat",),
}
"""The endings of file names by form, in lower case."""
IDX_IMAGES = re.compile(r"images[-.]idx3", re.IGNORECASE)
"""A part of the names of IDX files of images."""
_NAMES = {ending: form for form, endings in ENDINGS.items() for ending in endings}
# A folder has the first of these forms, because a table may lie beside the pictures that it was made from.
_FORMS_OF_FOLDERS = (PARQUET, HDF5, LEAF, IDX, PICTURES)
_IDX_HEADER = re.compile(rb"\x00\x00[\x08\x09\x0b-\x0e][\x01-\x03]", re.DOTALL)
_HEAD = 4096
_MOST_LISTED = 100_000


def recognise(path: str) -> str | None:
    """The form of the file or folder at `path`; None if it has none of these forms.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return _of_folder(pathlib.Path(path)) if os.path.isdir(path) else _of_file(path)
    except OSError as error:
        raise errors.UserError(
            f"--client_data={path} cannot be read ({error.strerror or error}): check its permissions."
        ) from error


def _of_file(path: str) -> str | None:
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path) as unpacked:
                return IDX if _IDX_HEADER.match(unpacked.read(4)) else None
        except (OSError, EOFError, zlib.error):
            return IDX if re.search(r"idx\d", path) else None
    for magic, form in _MAGIC.items():
        if head.startswith(magic):
            return form
    if head.startswith(b"PK\x03\x04") and _holds_arrays(path):
        return NPZ
    if _IDX_HEADER.match(head):
        return IDX
    named = _NAMES.get(os.path.splitext(path)[1].lower())
    if named and named != PICTURES:
        return named
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        return LEAF
    first = text.split(b"\n")[0]
    if b"\0" not in head and any(first.count(delimiter) for delimiter in (b",", b";", b"\t")):
        return CSV
    return None


def _holds_arrays(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except errors.OF_ZIP_FILES:
        return False


def _of_folder(path: pathlib.Path) -> str | None:
    """The form of the first files that have one. The files of a data set share it; other files may lie beside them."""
    found: set[str] = set()
    for listed, file in enumerate(below(path)):
        if listed > _MOST_LISTED and found:
            break
        form = IDX if IDX_IMAGES.search(file.name) else _NAMES.get(file.suffix.lower())
        if form in _FORMS_OF_FOLDERS and (form != LEAF or begins_as_leaf(file)):
            found.add(form)
    return next((form for form in _FORMS_OF_FOLDERS if form in found), None)


def below(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """What is in a folder, and in folders below it, except hidden ones. A folder with several links is read once."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (pathlib.Path(folder, name) for name in names if not name.startswith("."))


def begins_as_leaf(path: str | pathlib.Path) -> bool:
    """Whether a JSON file begins as LEAF's files do; `datasets` writes others beside its own."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    return bool(re.search(rb'"(users|num_samples|user_data|hierarchies)"', head))
