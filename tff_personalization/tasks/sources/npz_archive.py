"""Client data from a by-writer archive, an .npz file of NumPy arrays.

| array | shape | holds |
|---|---|---|
| `images` | (N, 28, 28) | integers 0 to 255, or floats in [0, 1] |
| `labels` | (N,) | integers, indices into `classes` |
| `writer` | (N,) | the writer of each example, a string or an integer |
| `classes`, optional | (C,) | the character of each class; without it, 0-9, A-Z, a-z, or those of `standard_set` |
| `split`, optional | (N,) | "train" or "test"; without it, each writer's examples are split 80 : 20 within classes |
| `ink`, optional | () | "bright" (ink high on background 0, the default) or "dark" |
| `source`, optional | () | what the data is, in a few words; generated data begins with "synthetic" |
"""

import contextlib
import math
import os
import tokenize
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, TypeAlias

import numpy as np
import psutil

from tff_personalization import errors, seeds
from tff_personalization.tasks import archives, sources
from tff_personalization.tasks.sources import emnist_files, gathering

# By default, no array that declares more bytes than this is read, so a small file cannot fill the memory.
_MAX_BYTES = 8 * 2**30
# Images are converted this many at a time, to avoid a second large array of floats.
_CHUNK = 8192
_KINDS = {"iuf": "integers or floats", "iu": "integers", "iuU": "strings or integers", "U": "strings"}


def load(options: sources.SourceOptions) -> archives.CharacterArchive:
    """The examples of the by-writer archive at the path `options.client_data`.

    With `options.num_classes` of 10, an archive without `split` is split after its letters are left out.

    Raises:
        UserError: if the file is missing or malformed.
    """
    path = options.client_data
    if not os.path.isfile(path):
        raise errors.UserError(f"{path}: there is no such file: give the path of a by-writer .npz archive.")
    return read(path, path, options.num_classes, options.seed, needs_writer=options.needs_clients)


def read(
    file: str | IO[bytes],
    name: str,
    num_classes: int,
    seed: int,
    max_bytes: int = _MAX_BYTES,
    *,
    needs_writer: bool = True,
) -> archives.CharacterArchive:
    """The examples of a by-writer archive, as in `load`.

    Args:
        file: a path, or an open file that can seek.
        name: its name in errors.
        num_classes: with 10, an archive without `split` is split after its letters are left out.
        seed: the seed that splits an archive without `split`.
        max_bytes: arrays that declare more are refused.
        needs_writer: whether an archive without `writer` is refused.

    Raises:
        UserError: it is malformed.
    """
    with _archive_members(file, name, max_bytes) as members:
        count = members.image_count()
        images = members.read("images", "iuf", (count, *archives.IMAGE_SHAPE))
        labels = members.read("labels", "iu", (count,))
        has_clients = needs_writer or "writer" in members
        writers, client_index = _writers(
            members.read("writer", "iuU", (count,)) if has_clients else np.full(count, "nobody")
        )
        classes = members.read("classes", "U") if "classes" in members else None
        split = members.read("split", "U", (count,)) if "split" in members else None
        ink, source = members.word("ink"), members.word("source")
    images = _ink_images(name, images, ink)
    labels, told = _project_labels(name, labels, classes, images)
    found = f"{len(writers):,} writers" if has_clients else "no writers named"
    notes = [f"{name}: a by-writer archive; {found}, {count:,} examples{told}."]
    if split is None:
        # Split only the examples in use, so that about a fifth of each writer's digits are test examples.
        keep = labels < num_classes
        images, labels, client_index = images[keep], labels[keep], client_index[keep]
        is_test = archives.split_by_client(labels, client_index, seeds.generator(seed, "split"))
        notes.append("The archive has no split: each writer's examples are split 80:20 into train and test, by seed.")
    else:
        is_test = _is_test(name, split)
    if source is None:
        stem = os.path.splitext(os.path.basename(name))[0]
        source = f"{stem}, {len(np.unique(client_index))} writers" if has_clients else f"{stem}, no writers named"
    return archives.CharacterArchive(
        images,
        labels,
        client_index,
        is_test,
        writers,
        archives.CLASSES,
        source,
        tuple(notes),
        has_clients,
        parts_as_meant=True,
    )


def _writers(writer: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The sorted names of the writers, and the index of each example's writer among them, from names or integers."""
    values, index = np.unique(writer, return_inverse=True)
    names, rank = np.unique(values.astype(str), return_inverse=True)  # integers and strings sort differently
    return tuple(names.tolist()), rank.astype(np.int32)[index]


class _Members:
    """The arrays of an open .npz file, each checked by its header before it is read."""

    def __init__(self, path: str, archive: zipfile.ZipFile, max_bytes: int):
        self._path = path
        self._archive = archive
        self._max_bytes = max_bytes
        self._sizes = {info.filename: info.file_size for info in archive.infolist()}

    def __contains__(self, name: str) -> bool:
        return f"{name}.npy" in self._sizes

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """The declared shape and dtype of an array."""
        if name not in self:
            hint = "; or deal its examples to made-up clients with --partition=dirichlet" if name == "writer" else ""
            raise errors.UserError(f"{self._path}: there is no array '{name}': a by-writer archive has one{hint}.")
        with self._archive.open(f"{name}.npy") as file:
            shape, dtype = _array_header(file)
            if dtype.hasobject:
                raise errors.UserError(
                    f"{self._path}: {name} holds Python objects, which are not read: save it as a plain NumPy array."
                )
            declared = math.prod(shape) * dtype.itemsize
            if declared > self._max_bytes:
                size, unit = (2**30, "GiB") if self._max_bytes >= 2**30 else (2**20, "MiB")
                raise errors.UserError(
                    f"{self._path}: {name} declares {declared / size:.0f} {unit}, more than the "
                    f"{self._max_bytes // size} {unit} that are read: make the archive smaller."
                )
            free = psutil.virtual_memory().available
            if 2 * declared > free:  # in the file, and in memory
                raise errors.UserError(
                    f"{self._path}: {name} takes {2 * declared / 2**30:.1f} GiB of memory while it is read, and "
                    f"{free / 2**30:.1f} GiB are free: make the archive smaller, or stop other programs here."
                )
            if file.tell() + declared != self._sizes[f"{name}.npy"]:
                raise ValueError(f"{name} does not have the size that its header declares")
        return shape, dtype

    def image_count(self) -> int:
        """The number of examples N, from the shape of `images`."""
        shape, _ = self.header("images")
        if len(shape) != 3 or shape[1:] != archives.IMAGE_SHAPE:
            raise errors.UserError(f"{self._path}: images has shape {shape}: (N, 28, 28) is expected.")
        if not shape[0]:
            raise errors.UserError(f"{self._path}: the archive is empty: it needs at least one example.")
        return shape[0]

    def read(self, name: str, kinds: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """The array; its dtype's kind and its shape (None: any one-dimensional shape) must be as expected."""
        actual, dtype = self.header(name)
        if actual != shape if shape is not None else len(actual) != 1:
            raise errors.UserError(f"{self._path}: {name} has shape {actual}: {_expected(shape)} is expected.")
        if dtype.kind not in kinds:
            raise errors.UserError(f"{self._path}: {name} has dtype {dtype}: save it as {_KINDS[kinds]}.")
        with self._archive.open(f"{name}.npy") as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    def word(self, name: str) -> str | None:
        """The single string under `name`, on one line; None if it is missing."""
        return " ".join(str(self.read(name, "U", ())).split()) if name in self else None


def _expected(shape: tuple[int, ...] | None) -> str:
    return "(C,)" if shape is None else "a single value, of shape ()," if shape == () else str(shape)


_Header: TypeAlias = tuple[tuple[int, ...], bool, np.dtype]  # shape, order in memory, dtype


def _array_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and dtype at the beginning of an .npy file; ValueError if it is damaged."""
    readers: dict[tuple[int, int], Callable[[IO[bytes]], _Header]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"array format version {version}")
    try:
        shape, _, dtype = readers[version](file)
    except (TypeError, SyntaxError, tokenize.TokenError) as error:  # The header is a Python literal.
        raise ValueError("the header of an array is damaged") from error
    return shape, dtype


@contextlib.contextmanager
def _archive_members(file: str | IO[bytes], path: str, max_bytes: int) -> Iterator[_Members]:
    """Opens an archive. Errors of a damaged file, here or while it is read, become UserErrors."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield _Members(path, archive, max_bytes)
    except errors.OF_ZIP_FILES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise errors.UserError(
            f"{path} cannot be read as an .npz archive ({reason}): it is damaged, cut short or of another kind; "
            "make it again."
        ) from error


def _ink_images(path: str, images: np.ndarray, ink: str | None) -> np.ndarray:
    """The images as uint8, ink 255 on background 0."""
    if ink not in (None, "bright", "dark"):
        raise errors.UserError(f"{path}: ink is {ink!r}: use 'bright' (ink 255 on 0) or 'dark' (ink 0 on 255).")
    result = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _CHUNK):
        result[start : start + _CHUNK] = gathering.to_bytes(f"{path}: images", images[start : start + _CHUNK])
    if images.dtype.kind != "f" and result.max() == 1:
        raise errors.UserError(
            f"{path}: images hold 0 and 1 only, 0 to 255 is expected: multiply them by 255, or save floats in 0 to 1."
        )
    if ink == "dark":
        np.subtract(255, result, out=result)
    elif ink is None and np.median(_border_pixels(result)) > 127:
        raise errors.UserError(
            f"{path}: the images have a bright background, ink 255 on 0 is expected: invert them, or add ink='dark'."
        )
    return result


def _border_pixels(images: np.ndarray) -> np.ndarray:
    """The outermost pixels, which show the background, of about ten thousand images."""
    some = images[:: max(1, len(images) // 10_000)]
    return np.concatenate([some[:, 0].ravel(), some[:, -1].ravel(), some[:, :, 0].ravel(), some[:, :, -1].ravel()])


def _project_labels(
    path: str, labels: np.ndarray, classes: np.ndarray | None, images: np.ndarray
) -> tuple[np.ndarray, str]:
    """The labels as int32 indices into `archives.CLASSES`, for any classes of the archive, and what was found."""
    if classes is None:
        standard = emnist_files.standard_set(labels, images)
        if standard is not None:
            codes, words = standard
            return np.array([codes.get(label, 0) for label in range(max(codes) + 1)], np.int32)[labels], f"; {words}"
    names = list(archives.CLASSES) if classes is None else classes.tolist()
    unknown = sorted(set(names) - set(archives.CLASSES))
    if unknown:
        raise errors.UserError(
            f"{path}: classes hold {unknown[0]!r}: only the characters 0-9, A-Z and a-z are supported."
        )
    if not names or len(set(names)) < len(names):
        raise errors.UserError(f"{path}: classes have no character, or one more than once: name each class once.")
    told = ""
    if len(names) > 1 and labels.min() == 1 and labels.max() == len(names):
        labels, told = labels - 1, f"; labels begin at 1: label 1 is {names[0]!r}"
    if labels.min() < 0 or labels.max() >= len(names):
        raise errors.UserError(
            f"{path}: labels go from {labels.min()} to {labels.max()}: with {len(names)} classes, "
            f"0 to {len(names) - 1} are expected."
        )
    return np.array([archives.CLASSES.index(name) for name in names], np.int32)[labels], told


def _is_test(path: str, split: np.ndarray) -> np.ndarray:
    is_test = split == "test"
    other = split[~is_test & (split != "train")]
    if len(other):
        raise errors.UserError(f"{path}: split holds {str(other[0])!r}: use only the words 'train' and 'test'.")
    return is_test
