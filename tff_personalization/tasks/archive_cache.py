"""A disk cache of client data: data is read or generated once and later mapped into memory.

An archive is a directory of three files. Examples are stored writer by writer, all train parts before all test parts.

    images.npy      uint8, shape (N, 28, 28)
    labels.npy      int32, shape (N,)
    metadata.json   writers, their numbers of train and test examples, classes, source, notes, size and checksum
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import math
import os
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Callable

import numpy as np
from absl import logging

from tff_personalization import homes
from tff_personalization.tasks import archives

FORMAT = 2
"""Part of every entry's name: raise it with every change of the files."""

Allocate = Callable[[int], np.ndarray]
"""From a number of examples N to an array for their images, uint8 of shape (N, 28, 28), of undefined content."""

_IMAGES, _LABELS, _METADATA = "images.npy", "labels.npy", "metadata.json"
_PARTIAL = "partial_"
_EXAMPLE_BYTES = math.prod(archives.IMAGE_SHAPE) + np.int32().nbytes
_METADATA_ROOM = 2**20
# How many of the images' first bytes the checksum covers: all of a small archive, and a quick part of a large one.
_CHECKED_BYTES = 2**25


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where one archive is kept.

    Attributes:
        cache_dir: the user's choice; "" for the default.
        source: a file name for everything that is kept from one source of data.
        content: what the data depends on. When it changes, what was kept from the source before is deleted.
        variant: a file name that distinguishes archives of the same source and content.
    """

    cache_dir: str
    source: str
    content: tuple[str | int, ...]
    variant: str

    @property
    def directory(self) -> pathlib.Path:
        return root_of(self.cache_dir) / self.source / f"{self.content_prefix}{self.variant}"

    @property
    def content_prefix(self) -> str:
        """The beginning of the names of all directories with this content."""
        return f"{digest(FORMAT, *self.content)}-"


def root_of(cache_dir: str) -> pathlib.Path:
    """The cache: the user's choice, or ~/.cache/tff_personalization; a temporary folder if that cannot be written."""
    return homes.expand(cache_dir) if cache_dir else homes.kept(".cache", "tff_personalization")


def digest(*parts: str | int) -> str:
    """A hash of `parts`, as ten hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]


def load_or_make(entry: Entry, make: Callable[[Allocate], archives.CharacterArchive]) -> archives.CharacterArchive:
    """The archive kept at `entry`, with its images mapped and read-only. If there is none, makes and keeps it.

    If it cannot be kept, it is returned anyway, after a warning that says why.

    Args:
        entry: where the archive is kept.
        make: makes the archive, in the order of `Archive.from_counts`. It is given a function that allocates the array
            for the images: on disk or, if there is no room, in memory.
    """
    kept = _load(entry.directory)
    if kept is not None:
        return kept
    with contextlib.ExitStack() as stack:
        new = _NewEntry(entry, stack)
        made = new.keep(make(new.allocate))
    return made


def _load(directory: pathlib.Path) -> archives.CharacterArchive | None:
    """The archive in a directory; None if there is none. A damaged one is deleted."""
    if not os.path.exists(directory):
        return None
    try:
        metadata = json.loads((directory / _METADATA).read_text())
        labels = np.load(directory / _LABELS, allow_pickle=False)
        if metadata.pop("checksum") != _checksum(directory, labels, metadata):
            raise ValueError("its checksum differs")
        return archives.CharacterArchive.from_counts(
            np.asarray(np.load(directory / _IMAGES, mmap_mode="r", allow_pickle=False)),
            labels,
            np.array([metadata["train_counts"], metadata["test_counts"]]),
            tuple(metadata["writers"]),
            tuple(metadata["classes"]),
            metadata["source"],
            notes=tuple(metadata["notes"]),
            has_clients=metadata["has_clients"],
            parts_as_meant=metadata["parts_as_meant"],
        )
    except Exception as error:  # A damaged file can raise anything.
        logging.warning("%s is damaged (%s); making it again.", directory, " ".join(str(error).split()))
        shutil.rmtree(directory, ignore_errors=True)
        return None


def _checksum(directory: pathlib.Path, labels: np.ndarray, metadata: dict) -> int:
    """A checksum of the metadata, the labels, the images' size, and the first part of the images."""
    path = directory / _IMAGES
    checksum = zlib.crc32(json.dumps([metadata, path.stat().st_size], sort_keys=True).encode())
    checksum = zlib.crc32(labels.data, checksum)
    with path.open("rb") as file:
        return zlib.crc32(file.read(_CHECKED_BYTES), checksum)


class _NewEntry:
    """An archive that is being written, in a directory beside its entry. The directory is renamed when it is whole."""

    def __init__(self, entry: Entry, stack: contextlib.ExitStack):
        """When `stack` is left, in any way, it deletes what was not kept."""
        self._entry = entry
        self._stack = stack
        self._directory: pathlib.Path | None = None
        self._images: np.memmap | None = None

    def allocate(self, count: int) -> np.ndarray:
        """See `Allocate`."""
        shape = (count, *archives.IMAGE_SHAPE)
        try:
            directory = self._new_directory(count * _EXAMPLE_BYTES + _METADATA_ROOM)
            images = np.lib.format.open_memmap(directory / _IMAGES, "w+", np.uint8, shape)
            with (directory / _IMAGES).open("r+b") as file:
                # The file has its length but not its blocks yet. On a full disk, writing one would kill the process.
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            self._directory, self._images = directory, images
            return np.asarray(images)
        except OSError as error:
            self._give_up(error)
            return np.empty(shape, np.uint8)

    def keep(self, archive: archives.CharacterArchive) -> archives.CharacterArchive:
        """Moves the archive to its entry and returns it from there. If that fails, returns it unmoved."""
        if self._directory is None or self._images is None:
            return archive
        try:
            self._images.flush()
            np.save(self._directory / _LABELS, archive.labels)
            metadata = _metadata(archive)
            metadata["checksum"] = _checksum(self._directory, archive.labels, metadata)
            (self._directory / _METADATA).write_text(json.dumps(metadata))
            os.rename(self._directory, self._entry.directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # as when another process was faster
                self._give_up(error)
                return archive
        return _load(self._entry.directory) or archive

    def _new_directory(self, needed: int) -> pathlib.Path:
        """Makes an empty directory beside the entry; OSError if that fails or fewer than `needed` bytes are free."""
        parent = self._entry.directory.parent
        parent.mkdir(parents=True, exist_ok=True)
        _delete_stale(self._entry)
        free = shutil.disk_usage(parent).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free")
        temporary = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=parent, ignore_cleanup_errors=True)
        )
        _lock(temporary, self._stack)
        directory = pathlib.Path(temporary, self._entry.directory.name)
        directory.mkdir()  # with the permissions that the user's mask gives
        return directory

    def _give_up(self, error: OSError) -> None:
        logging.warning(
            "%s: the client data cannot be kept there (%s). The run continues without a cache, and the next one "
            "reads or makes the data again; name another place with --cache_dir.",
            self._entry.directory.parent,
            error.strerror or error,
        )


def _metadata(archive: archives.CharacterArchive) -> dict:
    train_counts, test_counts = archive.counts.tolist()
    return {
        "source": archive.source,
        "notes": archive.notes,
        "has_clients": archive.has_clients,
        "parts_as_meant": archive.parts_as_meant,
        "classes": archive.classes,
        "writers": archive.clients,
        "train_counts": train_counts,
        "test_counts": test_counts,
    }


def _delete_stale(entry: Entry) -> None:
    """Deletes archives of an earlier state of the source, and half-written ones of a killed process."""
    for other in entry.directory.parent.iterdir():
        if other.name.startswith(_PARTIAL):
            with contextlib.ExitStack() as stack:
                if _lock(str(other), stack):
                    shutil.rmtree(other, ignore_errors=True)
        elif not other.name.startswith(entry.content_prefix):
            shutil.rmtree(other, ignore_errors=True)


def _lock(directory: str, stack: contextlib.ExitStack) -> bool:
    """Locks a directory until `stack` or the process ends. False if it is locked already, or cannot be."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
