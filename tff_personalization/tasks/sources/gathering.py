"""Shared parts of the readers of image files: pixel values to bytes, polarity, examples in any order."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm
from absl import logging

from tff_personalization import errors
from tff_personalization.tasks import archive_cache, archives, references, sources
from tff_personalization.tasks.sources import forms

VERSION = 4
"""Part of the cache key of all files of client data: raise it with every change of what is read."""

PIXELS = archives.IMAGE_SHAPE[0] * archives.IMAGE_SHAPE[1]
_CHUNK = 8192
_SEEN = 2000  # images that are checked for their orientation
_OTHER = {"train": "test", "test": "train"}
_PART = re.compile(r"(?:^|[^a-z])(train|test)(?:ing)?(?:[^a-z]|$)")
_VALIDATION = re.compile(r"(?i)(?:^|[^a-z])(valid|validation|val|dev)(?:[^a-z]|$)")


class Gathered:
    """Collects examples in any order. Their pixels are kept in a temporary file, one byte each."""

    def __init__(self, name: str):
        """`name` is the data's name in errors and records."""
        self.name = name
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the object)
        self._number: dict[str, int] = {}
        self._clients: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._is_test: list[np.ndarray] = []
        self._bright: list[np.ndarray] = []
        self._brightest = 0

    def add(
        self, clients: str | Sequence[str], images: np.ndarray, labels: np.ndarray, is_test: bool | np.ndarray
    ) -> None:
        """Adds n examples.

        Args:
            clients: the client of all of them, or of each.
            images: uint8, shape (n, 28, 28), of either polarity, as in the data.
            labels: int, shape (n,), indices into `archives.CLASSES`.
            is_test: whether all of them, or each, is a test example.
        """
        names = [clients] * len(labels) if isinstance(clients, str) else clients
        numbers = np.array([self._number.setdefault(name, len(self._number)) for name in names], np.int32)
        try:
            self._file.write(np.ascontiguousarray(images).data)
        except OSError as error:
            raise errors.UserError(
                f"{self.name}: there is no room for its images in {tempfile.gettempdir()} ({error.strerror}): "
                "make room there, or name another directory in the environment variable TMPDIR."
            ) from error
        self._clients.append(numbers)
        self._labels.append(np.asarray(labels, np.int32))
        self._is_test.append(np.broadcast_to(np.asarray(is_test, bool), numbers.shape))
        self._bright.append(bright_border(images))
        self._brightest = max(self._brightest, int(images.max(initial=0)))

    def archive(
        self,
        allocate: archive_cache.Allocate,
        form: str,
        *,
        has_clients: bool = True,
        each_client: bool = False,
        usually: str = "upright",
    ) -> archives.CharacterArchive:
        """The archive of all added examples, with upright images, ink 255 on 0.

        Args:
            allocate: gives the array for its images.
            form: the form of the data, in words.
            has_clients: as in the archive.
            each_client: find the polarity of each client's images separately.
            usually: the usual orientation of this form; "transposed" images are turned, unless they look upright.

        Raises:
            UserError: nothing was added.
        """
        if not sum(map(len, self._labels)):
            raise errors.UserError(f"{self.name}: there is no example in it.")
        self._file.flush()
        labels, is_test, bright = (np.concatenate(part) for part in (self._labels, self._is_test, self._bright))
        pixels = np.memmap(self._file, np.uint8, "r", shape=(len(labels), *archives.IMAGE_SHAPE))
        writers = tuple(sorted(self._number))
        rank = np.empty(len(writers), np.int32)
        rank[[self._number[writer] for writer in writers]] = np.arange(len(writers), dtype=np.int32)
        index = rank[np.concatenate(self._clients)]
        if self._brightest == 1:
            raise errors.UserError(
                f"{self.name}: pixels are 0 and 1 only, where 255 is the brightest: multiply them by 255."
            )
        invert, found = _polarity(index, bright, len(writers), each_client)
        if usually != "upright":
            some = np.linspace(0, len(labels) - 1, min(len(labels), _SEEN)).astype(int)
            seen = np.where(invert[index[some], None, None], 255 - pixels[some], pixels[some])
            usually = references.found_orientation(seen, labels[some], usually)
            found += f", {usually}" + (", turned upright" if usually == "transposed" else "")
        order = np.lexsort((index, is_test))
        images = allocate(len(labels))
        for start in range(0, len(labels), _CHUNK):
            chunk = order[start : start + _CHUNK]
            part = np.where(invert[index[chunk], None, None], 255 - pixels[chunk], pixels[chunk])
            images[start : start + _CHUNK] = part.swapaxes(1, 2) if usually == "transposed" else part
        who = f"{len(writers):,} writers" if has_clients else "no writers named"
        line = (
            f"{self.name}: {form}; {who}, {len(labels):,} examples, {is_test.sum():,} of them in a test part, "
            f"{len(np.unique(labels))} classes; {found}."
        )
        return archives.CharacterArchive(
            images,
            labels[order],
            index[order],
            is_test[order],
            writers,
            archives.CLASSES,
            f"{self.name}, {who}",
            notes=(line,),
            has_clients=has_clients,
        )


def bright_border(images: np.ndarray) -> np.ndarray:
    """Whether most of the outermost pixels of each image, uint8 of shape (n, 28, 28), are bright: bool, shape (n,)."""
    bright = images > 127
    edges = bright[:, 0].sum(1) + bright[:, -1].sum(1) + bright[:, 1:-1, 0].sum(1) + bright[:, 1:-1, -1].sum(1)
    return edges > (2 * sum(archives.IMAGE_SHAPE) - 4) / 2


def _polarity(index: np.ndarray, bright: np.ndarray, writers: int, each_client: bool) -> tuple[np.ndarray, str]:
    """Which writers' images have a bright background, bool of shape (writers,), and the same in words."""
    share = np.bincount(index, bright, writers) / np.maximum(np.bincount(index, minlength=writers), 1)
    if each_client and 0 < (dark_ink := share > 0.5).sum() < writers:
        return (
            dark_ink,
            f"dark ink on a bright background for {dark_ink.sum():,} of them, bright ink on dark for the rest",
        )
    dark = bool(bright.mean() > 0.5)
    return np.full(writers, dark), "dark ink on a bright background" if dark else "bright ink on a dark background"


def to_bytes(name: str, images: np.ndarray) -> np.ndarray:
    """Pixels as uint8, shape (n, 28, 28): floats from 0 to 1 become 256 levels, integers 0 to 255 do not change.

    Raises:
        UserError: they have another size, type or range.
    """
    if images.dtype.kind not in "iufb":
        raise errors.UserError(f"{name}: pixels are not numbers ({images.dtype}): floats in 0 to 1 are expected.")
    if images.shape[1:] not in (archives.IMAGE_SHAPE, (PIXELS,), (*archives.IMAGE_SHAPE, 1)):
        raise errors.UserError(
            f"{name}: images have shape {images.shape[1:]}: {PIXELS} pixels, or 28 rows of 28, are expected."
        )
    images = images.reshape(-1, *archives.IMAGE_SHAPE)
    if images.dtype.kind == "b":
        return images.astype(np.uint8) * np.uint8(255)
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise errors.UserError(f"{name}: some pixels are NaN or infinite: clean them first.")
    highest = 1 if images.dtype.kind == "f" else 255
    if len(images) and not (images.min() >= 0 and images.max() <= highest):
        raise errors.UserError(
            f"{name}: pixels go from {images.min()} to {images.max()}: {'floats' if highest == 1 else 'integers'} "
            f"must be in 0 to {highest}."
        )
    return np.rint(images.astype(np.float64) * 255).astype(np.uint8) if highest == 1 else images.astype(np.uint8)


def to_labels(name: str, labels: np.ndarray, count: int) -> np.ndarray:
    """Labels as int32, shape (count,). Raises UserError if they are not whole numbers that stand for a character."""
    labels, last = np.asarray(labels), len(archives.CLASSES) - 1
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise errors.UserError(f"{name}: {count} images have labels of shape {labels.shape}: one each is expected.")
    if not count:
        return np.zeros(0, np.int32)
    if labels.dtype.kind not in "iuf" or not np.array_equal(labels, np.rint(labels)):
        raise errors.UserError(f"{name}: labels are not whole numbers: 0 to {last} are expected.")
    if labels.min() < 0 or labels.max() > last:
        raise errors.UserError(
            f"{name}: labels go from {labels.min():g} to {labels.max():g}: 0 to {last} are expected."
        )
    return labels.astype(np.int32)


def part_of(path: pathlib.Path, root: pathlib.Path) -> str | None:
    """The word train or test, if the name of a file, or of a folder between it and `root`, contains it; else None."""
    names = [path.name, *(parent.name for parent in path.parents if parent.is_relative_to(root) and parent != root)]
    for name in names:
        if found := _PART.search(name.lower()):
            return found[1]
    return None


def files_of(path: str, form: str) -> dict[pathlib.Path, bool]:
    """The files of one data set, in the order of their names, and whether each belongs to the test part.

    `path` can be a file: then it is that file and, if its name says train or test, its counterpart. `path` can be a
    folder: then it is all its files with one of the form's endings, and those of a folder test beside a folder train.
    If some names say train or test, files that do not are left out. If they are called validation, a warning says so.
    """
    root = pathlib.Path(path).absolute()
    if root.is_file():
        part = part_of(root, root.parent)
        found = [root]
        if part:
            other = _OTHER[part]
            found += [
                candidate
                for name in {re.sub(part, other, root.name), re.sub(part.capitalize(), other.capitalize(), root.name)}
                if name != root.name and (candidate := root.with_name(name)).is_file()
            ]
        return {file: part_of(file, root.parent) == "test" and len(found) > 1 for file in sorted(found)}
    roots = [root]
    counterpart = root.with_name(_OTHER.get(root.name.lower(), root.name))
    if counterpart != root and counterpart.is_dir():
        roots, root = [root, counterpart], root.parent
    found = sorted(
        file
        for each in roots
        for file in forms.below(each)
        if file.name.lower().endswith(forms.ENDINGS[form]) and file.is_file()
    )
    parts = {file: part_of(file, root) for file in found}
    if any(parts.values()):
        names = [str(file.relative_to(root)) for file, part in parts.items() if not part]
        if unread := list(filter(_VALIDATION.search, names)):
            logging.warning(
                "%s: not read, because their names say neither train nor test: %s; to use them, give them names that "
                "do.",
                path,
                ", ".join(unread[:3]) + (" …" if len(unread) > 3 else ""),
            )
        parts = {file: part for file, part in parts.items() if part}
    return {file: part == "test" and "train" in parts.values() for file, part in parts.items()}


def cached(
    options: sources.SourceOptions,
    make: Callable[[archive_cache.Allocate], archives.CharacterArchive],
    files: Iterable[pathlib.Path] | None = None,
    variant: str = "all",
) -> archives.CharacterArchive:
    """The archive that `make` makes from the file or folder `options.client_data`; cached until a file changes.

    Args:
        options: names the client data and the cache directory.
        make: makes the archive, as in `archive_cache.load_or_make`.
        files: all files that are read; None for the file at the path.
        variant: distinguishes archives that are made from the same files.
    """
    path = os.path.realpath(options.client_data)
    stem = os.path.splitext(os.path.basename(path))[0]
    states = [
        [str(file), (state := os.stat(file)).st_size, state.st_mtime_ns] for file in files or [pathlib.Path(path)]
    ]
    content = hashlib.sha256(json.dumps(states).encode()).hexdigest()
    entry = archive_cache.Entry(options.cache_dir, f"{stem}-{archive_cache.digest(path)}", (VERSION, content), variant)
    return archive_cache.load_or_make(entry, make)


def name_of(path: str) -> str:
    """The name of the data at a path, for records: that of the file or folder, without its ending."""
    absolute = pathlib.Path(path).absolute()
    return absolute.name if absolute.is_dir() else absolute.name.split(".")[0]


def bar_of(options: sources.SourceOptions, total: int, unit: str = " examples", **settings: Any) -> tqdm.tqdm:
    """The progress bar of a reader."""
    description = f"Reading {os.path.basename(os.path.normpath(options.client_data))}"
    return tqdm.tqdm(total=total, desc=description, unit=unit, **settings)


@contextlib.contextmanager
def plain_damage(path: str | pathlib.Path, kind: str, *damages: type[BaseException]) -> Iterator[None]:
    """A context that reads a file: errors of the file's library become UserErrors."""
    caught: tuple[type[BaseException], ...] = (OSError, *damages)
    try:
        yield
    except caught as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        cause = "it is damaged, cut short or of another kind; get or make it again"
        if isinstance(error, UnicodeDecodeError) and UnicodeDecodeError in damages:  # a text file
            cause = "save it as UTF-8 text, or get it again"
        raise errors.UserError(f"{path} cannot be read as {kind} ({reason}): {cause}.") from error
