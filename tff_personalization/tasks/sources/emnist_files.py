"""Client data in NIST's files of EMNIST (Cohen et al. 2017): MATLAB files, and IDX files as MNIST has them.

MATLAB: `dataset.train` and `dataset.test` of `images` (n, 784), `labels` (n, 1) and `writers` (n, 1), and
`dataset.mapping`, whose rows are a label and the codes of its characters. Images are transposed; letters have labels
from 1.

IDX: `…-images-idx3-ubyte` with `…-labels-idx1-ubyte`. The writer of each example, if known, is in `…-writers-idx1-…`,
    or in the third column of labels as in QMNIST (`…-labels-idx2-int`). `…-mapping.txt` is as above. Files may be
    compressed (.gz). Images are transposed, or upright as in MNIST; their contents decide.
"""

import gzip
import math
import pathlib
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tff_personalization import errors
from tff_personalization.tasks import archive_cache, archives, references, sources
from tff_personalization.tasks.sources import forms, gathering

_MATLAB, _IDX = "EMNIST's MATLAB form", "an IDX file"
_BATCH = 8192
_DAMAGES_OF_MATLAB = (  # what SciPy raises
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError),
    *(zlib.error, EOFError, struct.error),
)
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_BYTES = 2**32


def load_mat(options: sources.SourceOptions) -> archives.CharacterArchive:
    """The images of the MATLAB file at `options.client_data`; cached in `options.cache_dir`.

    Raises:
        UserError: if it is malformed.
    """
    return gathering.cached(options, lambda allocate: _read_mat(options, allocate))


def _read_mat(options: sources.SourceOptions, allocate: archive_cache.Allocate) -> archives.CharacterArchive:
    from scipy import io  # Imported here, because only these files need it.

    path = options.client_data
    gathered = gathering.Gathered(gathering.name_of(path))
    with gathering.plain_damage(path, _MATLAB, *_DAMAGES_OF_MATLAB):
        dataset = io.loadmat(path, squeeze_me=False, struct_as_record=True)["dataset"][0, 0]
        mapped = "mapping" in (dataset.dtype.names or ())
        every = (dataset[part][0, 0]["labels"] for part in ("train", "test"))
        codes = _mapping(path, np.asarray(dataset["mapping"])) if mapped else _codes(every)
        has_clients = True
        with gathering.bar_of(options, sum(len(dataset[part][0, 0]["labels"]) for part in ("train", "test"))) as bar:
            for part in ("train", "test"):
                fields = dataset[part][0, 0]
                images, labels = fields["images"], fields["labels"]
                named = "writers" in (fields.dtype.names or ())
                has_clients = has_clients and named
                writers = fields["writers"].ravel() if named else np.zeros(len(labels), int)
                _add(gathered, path, images, labels, writers, part == "test", codes, bar)
    return gathered.archive(allocate, _MATLAB, has_clients=has_clients, usually="transposed")


def load_idx(options: sources.SourceOptions) -> archives.CharacterArchive:
    """The images of the IDX files at `options.client_data` (a folder or a file), cached in `options.cache_dir`.

    Raises:
        UserError: if one is missing or malformed.
    """
    path = pathlib.Path(options.client_data)
    files_there = forms.below(path) if path.is_dir() else path.parent.iterdir()
    found = sorted(file for file in files_there if file.is_file() and forms.IDX_IMAGES.search(file.name))
    # torchvision leaves each file in the folder twice, compressed and unpacked.
    found = [file for file in found if file.suffix != ".gz" or file.with_suffix("") not in found]
    if path.is_file():
        found = [file for file in found if _set_of(file) == _set_of(path)]
    prefixes = {_set_of(file) for file in found}
    if not found or len(prefixes) > 1:
        raise errors.UserError(
            f"{path}: the images of one data set are expected, …-images-idx3-ubyte; found: "
            f"{', '.join(sorted(prefixes)) or 'none'}. Name one of its files."
        )
    beside = {file: _beside(file) for file in found}
    files = [file for group in beside.values() for file in group.values() if file]
    return gathering.cached(options, lambda allocate: _read_idx(options, beside, allocate), files)


def _stem(path: pathlib.Path) -> str:
    """The part of a file's name before its kind, such as emnist-byclass-train."""
    return re.split(r"[-_.](?:images|labels|writers?|mapping)", path.name, flags=re.IGNORECASE)[0]


def _set_of(path: pathlib.Path) -> str:
    """The beginning of the names of all files of a data set, such as emnist-byclass."""
    return re.sub(r"(train|test|t10k)$", "", _stem(path), flags=re.IGNORECASE).rstrip("-_.")


def _beside(images: pathlib.Path) -> dict[str, pathlib.Path | None]:
    """The files that belong to a file of images, by their contents."""
    siblings = [
        file for file in sorted(images.parent.iterdir()) if file.is_file() and file.name.startswith(_stem(images))
    ]
    found: dict[str, pathlib.Path | None] = {"images": images}
    for kind in ("labels", "writer"):
        named = [file for file in siblings if kind in file.name.lower().removeprefix(_stem(images).lower())]
        found[kind] = named[0] if named else None
    if found["labels"] is None:
        raise errors.UserError(f"{images}: there are no labels beside it, {_stem(images)}-labels-idx1-ubyte.")
    mappings = sorted(file for file in images.parent.iterdir() if file.name.lower().endswith("mapping.txt"))
    found["mapping"] = next((file for file in mappings if _set_of(file) == _set_of(images)), None)
    return found


def _read_idx(
    options: sources.SourceOptions,
    groups: dict[pathlib.Path, dict[str, pathlib.Path | None]],
    allocate: archive_cache.Allocate,
) -> archives.CharacterArchive:
    gathered = gathering.Gathered(gathering.name_of(options.client_data))
    has_clients = True
    columns = {file: np.atleast_2d(_idx(group["labels"]).T) for file, group in groups.items()}
    usual = _codes(of[0] for of in columns.values())
    for file, group in groups.items():
        images, (labels, *more) = _idx(file), columns[file]
        writers: np.ndarray = np.zeros(len(labels), int)
        if group["writer"]:
            writers = _idx(group["writer"]).ravel()
        elif len(more) >= 2:
            writers = more[1]
        else:
            has_clients = False
        codes = usual
        if group["mapping"]:
            with gathering.plain_damage(group["mapping"], "a mapping of labels to characters", ValueError):
                codes = _mapping(str(group["mapping"]), np.loadtxt(group["mapping"], int, ndmin=2))
        is_test = gathering.part_of(file, file.parent) == "test" or "t10k" in file.name.lower()
        with gathering.bar_of(options, len(images)) as bar:
            _add(gathered, str(file), images, labels, writers, is_test, codes, bar)
    form = f"IDX files, {', '.join(sorted(file.name for file in groups))}"
    return gathered.archive(allocate, form, has_clients=has_clients, usually="transposed")


def _add(
    gathered: gathering.Gathered,
    where: str,
    images: np.ndarray,
    labels: np.ndarray,
    writers: np.ndarray,
    is_test: bool,
    codes: dict[int, int],
    bar: Any,
) -> None:
    labels = np.asarray(labels).reshape(-1)
    if not len(images) == len(labels) == len(writers):
        raise errors.UserError(
            f"{where}: {len(images)} images, {len(labels)} labels and {len(writers)} writers: equal numbers are "
            "expected."
        )
    unknown = sorted(set(np.unique(labels).tolist()) - set(codes))
    if unknown:
        raise errors.UserError(f"{where}: the label {unknown[0]} is not among the {len(codes)} classes of the data.")
    for start in range(0, len(labels), _BATCH):
        part = slice(start, start + _BATCH)
        mapped = np.array([codes[label] for label in labels[part].tolist()], np.int32)
        names = [archives.client_name(where, writer) for writer in np.asarray(writers[part]).tolist()]
        gathered.add(names, gathering.to_bytes(where, np.asarray(images[part])), mapped, is_test)
        bar.update(len(mapped))


BALANCED = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"
"""The characters of EMNIST's balanced and by-merge sets, in the order of their labels."""
_LETTERS = {label: 9 + label for label in range(1, 27)}
_BALANCED = {label: archives.CLASSES.index(character) for label, character in enumerate(BALANCED)}
_BY_CLASS = {label: label for label in range(len(archives.CLASSES))}


def _codes(parts: Iterable[np.ndarray]) -> dict[int, int]:
    """The index in `archives.CLASSES` of each label of data without a mapping, from the labels of all of its parts."""
    found = standard_set(np.concatenate([np.ravel(labels) for labels in parts]))
    return found[0] if found else _BY_CLASS


def standard_set(labels: np.ndarray, images: np.ndarray | None = None) -> tuple[dict[int, int], str] | None:
    """The index in `archives.CLASSES` of each label, and the set's name, if labels are exactly those of an EMNIST set.

    These are 1 to 26 for letters and 0 to 46 for the balanced set; other labels give None. In some orientation, the
    images, uint8 of shape (n, 28, 28) with ink 255 on 0, must look more like these classes than like those of labels 0
    to 61.
    """
    present = set(np.unique(labels).tolist())
    for codes, words in (
        (_LETTERS, "EMNIST's letters, labels 1 to 26, taken as A-Z"),
        (_BALANCED, "EMNIST's balanced classes, 47"),
    ):
        if present == set(codes):
            if images is None:
                return codes, words
            differ = np.flatnonzero([codes[label] != label for label in labels.tolist()])
            some = differ[np.linspace(0, len(differ) - 1, min(len(differ), 2000)).astype(int)]
            own, plain = (
                references.own_similarities(images[some], np.array([of[label] for label in labels[some].tolist()]))
                for of in (codes, _BY_CLASS)
            )
            best = int(own.mean(axis=1).argmax())
            if references.clearly_greater(own[best], plain[int(plain.mean(axis=1).argmax())]):
                return codes, words
    return None


def _mapping(where: str, rows: np.ndarray) -> dict[int, int]:
    """The index in `archives.CLASSES` of each label, from rows of a label and the codes of its characters."""
    found = {}
    for label, *codes in np.asarray(rows).astype(int).tolist():
        characters = [chr(code) for code in codes if 0 < code < 128 and chr(code) in archives.CLASSES]
        if not characters:
            raise errors.UserError(f"{where}: label {label} is mapped to no character of 0-9, A-Z, a-z.")
        found[label] = archives.CLASSES.index(characters[0])
    return found


def _idx(path: pathlib.Path | None) -> np.ndarray:
    """The array of an IDX file, which may be compressed."""
    assert path is not None
    with gathering.plain_damage(path, _IDX, EOFError, zlib.error, struct.error, ValueError), path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else path.open("rb") as file:
            zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
            if zeros or kind not in _TYPES or not 1 <= dimensions <= 3:
                raise ValueError("its first bytes are not those of IDX")
            shape: Sequence[int] = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            size = math.prod(shape) * np.dtype(_TYPES[kind]).itemsize
            if size > _MAX_BYTES:
                raise ValueError(f"it declares {size / 2**30:.0f} GiB")
            content = file.read(size + 1)
            if len(content) != size:
                raise ValueError(f"it has {len(content)} bytes where its header declares {size}")
    array = np.frombuffer(content, _TYPES[kind]).reshape(shape)
    return array.astype(array.dtype.newbyteorder("="))
