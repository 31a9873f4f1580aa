"""Files that are whole or not there, and the errors of writing them as Python has them."""

import contextlib
import errno
import functools
import hashlib
import io
import json
import math
import os
import pathlib
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
    """Writes a file under a temporary name, then gives it its own: it is never half-written.

    Raises:
        OSError: it cannot be written; the error names it, and what was there before is as it was.
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
    """Waits for a file or folder that was renamed to be seen: on some file systems of clusters that takes a while.

    Raises:
        OSError: it is not there after 20 s.
    """
    deadline = time.monotonic() + _SECONDS_TO_BE_SEEN
    while not path.exists():
        if time.monotonic() > deadline:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        time.sleep(0.05)


def share(path: pathlib.Path, other: pathlib.Path) -> None:
    """Gives a file that never changes a second name; where the file system cannot do that, copies it."""
    try:
        os.link(path, other)
    except FileExistsError:
        pass
    except OSError:
        _write(other, path.read_bytes())


def save_arrays(path: pathlib.Path, arrays: Iterable[np.ndarray] = (), **named: np.ndarray) -> None:
    """Writes arrays to an .npz file, as `write_text` does; `named` ones by their names."""
    content = io.BytesIO()  # to a file that cannot be written, ZipFile writes again when it is deleted
    np.savez(content, *arrays, **named)
    _write(path, content.getbuffer())


def load_arrays(path: pathlib.Path) -> list[np.ndarray]:
    """The arrays of a file that `save_arrays` wrote, in their order.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with np.load(path) as arrays:
            return [arrays[name] for name in arrays.files]
    except (*npz_archive.UNREADABLE, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise errors.UserError(
            f"{path}: damaged ({reason}): restore the file, or move its run directory away and start again."
        ) from error


def fingerprint(path: pathlib.Path) -> dict[str, Any]:
    """The size of a file and the SHA-256 of its bytes, which is taken once for as long as the file stays as it is."""
    found = path.stat()
    return {"bytes": found.st_size, "sha256": _sha256(path.resolve(), found.st_size, found.st_mtime_ns)}


@functools.cache
def _sha256(path: pathlib.Path, size: int, changed: int) -> str:
    del size, changed  # of which another one is another file
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clear_leftovers(directory: pathlib.Path) -> None:
    """Removes what a start that was killed left under temporary names, TFF's own included."""
    for leftover in (*directory.glob("*_temp[0-9]*"), *directory.glob("*.temp")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


@contextlib.contextmanager
def as_os_errors(path: pathlib.Path) -> Iterator[None]:
    """Where TensorFlow writes below `path`: its errors of the file system become OSErrors that name it.

    TensorFlow has one kind of error for a full disk and for too little memory: the latter becomes a MemoryError.
    """
    try:
        yield
    except tuple(_ERRNO) as error:
        if isinstance(error, tf.errors.ResourceExhaustedError) and "OOM" in str(error):
            raise MemoryError("in TensorFlow") from error
        number = next(number for kind, number in _ERRNO.items() if isinstance(error, kind))
        raise OSError(number, os.strerror(number), str(path)) from error


def json_text(value: Any) -> str:
    """A value as JSON, which has no NaN and no infinity: they are null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
