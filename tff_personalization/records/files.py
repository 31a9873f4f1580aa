"""Writes files whole or not at all, and turns TensorFlow's file errors into Python's."""

import contextlib
import errno
import functools
import hashlib
import io
import json
import math
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tff_personalization import errors
from tff_personalization.tasks.sources import npz_archive

_SECONDS_TO_BE_SEEN = 20.0
_ERRNO = {
    tf.errors.ResourceExhaustedError: errno.ENOSPC,
    tf.errors.PermissionDeniedError: errno.EACCES,
    tf.errors.NotFoundError: errno.ENOENT,
}


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file under a temporary name, then renames it. So it is never half-written.

    Raises:
        OSError: it cannot be written. The error names the file; an earlier version of it is unchanged.
    """
    _write(path, text.encode())


def _write(path: pathlib.Path, content: bytes | memoryview) -> None:
    temporary = path.with_name(f"{path.name}_temp0")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
        wait_until_there(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def wait_until_there(path: pathlib.Path) -> None:
    """Waits until a renamed file or folder can be seen, which takes a while on some cluster file systems.

    Raises:
        OSError: it is not there after 20 s.
    """
    deadline = time.monotonic() + _SECONDS_TO_BE_SEEN
    while not path.exists():
        if time.monotonic() > deadline:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        time.sleep(0.05)


def share(path: pathlib.Path, other: pathlib.Path) -> None:
    """Gives a file that never changes a second name (a hard link). Where the file system has none, copies it."""
    try:
        os.link(path, other)
    except FileExistsError:
        pass
    except OSError:
        _write(other, path.read_bytes())


def save_arrays(path: pathlib.Path, arrays: Iterable[np.ndarray] = (), **named: np.ndarray) -> None:
    """Writes arrays to an .npz file, in the way of `write_text`; those in `named` keep their names."""
    content = io.BytesIO()  # to a file that cannot be written, ZipFile writes again when it is deleted
    np.savez(content, *arrays, **named)
    _write(path, content.getbuffer())


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `save_arrays` wrote, by name, in their order.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (*npz_archive.UNREADABLE, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise errors.UserError(
            f"{path}: damaged ({reason}): restore the file, or move its run directory away and start again."
        ) from error


def fingerprint(path: pathlib.Path) -> dict[str, Any]:
    """The size and the SHA-256 of a file, or of all files of a folder with their names, except hidden ones.

    Each file's hash is computed once, until the file changes.
    """
    if path.is_dir():
        names = sorted(str(found.relative_to(path)) for found in path.rglob("*") if found.is_file())
        of_files = {name: fingerprint(path / name) for name in names if not re.search(r"(^|/)\.", name)}
        content = json.dumps({name: found["sha256"] for name, found in of_files.items()}).encode()
        size = sum(found["bytes"] for found in of_files.values())
        return {"bytes": size, "sha256": hashlib.sha256(content).hexdigest()}
    found = path.stat()
    return {"bytes": found.st_size, "sha256": _sha256(path.resolve(), found.st_size, found.st_mtime_ns)}


@functools.cache
def _sha256(path: pathlib.Path, size: int, changed: int) -> str:
    del size, changed  # of which another one is another file
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clear_leftovers(directory: pathlib.Path) -> None:
    """Deletes files that a killed process left under temporary names, including TFF's."""
    for leftover in (*directory.glob("*_temp[0-9]*"), *directory.glob("*.temp")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


@contextlib.contextmanager
def as_os_errors(path: pathlib.Path) -> Iterator[None]:
    """Turns TensorFlow's file system errors for files below `path` into OSErrors that name it.

    TensorFlow raises the same error for a full disk and for too little memory. The second becomes a MemoryError.
    """
    try:
        yield
    except tuple(_ERRNO) as error:
        if isinstance(error, tf.errors.ResourceExhaustedError) and "OOM" in str(error):
            raise MemoryError("in TensorFlow") from error
        number = next(number for kind, number in _ERRNO.items() if isinstance(error, kind))
        raise OSError(number, os.strerror(number), str(path)) from error


def json_text(value: Any) -> str:
    """A value as JSON. NaN and infinity become null, because JSON has neither."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
