"""Recognizes the form of a file or folder of client data by its content, or else by its name."""

import gzip
import os
import pathlib
import re
import zipfile
import zlib

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
_NAMES = {
    ".npz": NPZ,
    **dict.fromkeys((".sqlite", ".sqlite3", ".db"), SQLITE),
    ".json": LEAF,
    **dict.fromkeys((".h5", ".hdf5"), HDF5),
    **dict.fromkeys((".parquet", ".arrow", ".feather"), PARQUET),
    **dict.fromkeys((".csv", ".tsv"), CSV),
    ".mat": MATLAB,
}
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm")
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
    if named:
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
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _of_folder(path: pathlib.Path) -> str | None:
    """The form of the first files that have one. The files of a data set share it; other files may lie beside them."""
    found: set[str] = set()
    listed = 0
    for folder, folders, names in os.walk(path, followlinks=True):
        folders.sort()
        for name in names:
            listed += 1
            ending = os.path.splitext(name)[1].lower()
            if re.search(r"images[-.]idx3", name):
                found.add(IDX)
            elif ending in _PICTURES:
                found.add(PICTURES)
            elif ending in (".parquet", ".arrow", ".feather"):
                found.add(PARQUET)
            elif ending in (".h5", ".hdf5"):
                found.add(HDF5)
            elif ending == ".json" and begins_as_leaf(os.path.join(folder, name)):
                found.add(LEAF)
        if listed > _MOST_LISTED and found:
            break
    for form in (PARQUET, HDF5, LEAF, IDX, PICTURES):  # such as a table beside pictures that it was made from
        if form in found:
            return form
    return None


def begins_as_leaf(path: str | pathlib.Path) -> bool:
    """Whether a JSON file begins as LEAF's files do; `datasets` writes others beside its own."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    return bool(re.search(rb'"(users|num_samples|user_data|hierarchies)"', head))
