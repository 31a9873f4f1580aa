"""Files that are whole or not there, and the errors of writing them as Python has them."""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

_ERRNO = {
    tf.errors.ResourceExhaustedError: errno.ENOSPC,
    tf.errors.PermissionDeniedError: errno.EACCES,
    tf.errors.NotFoundError: errno.ENOENT,
}


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file under a temporary name, then gives it its own: it is never half-written."""
    temporary = path.with_name(f"{path.name}_temp0")
    try:
        temporary.write_text(text, newline="")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def save_arrays(path: pathlib.Path, arrays: Iterable[np.ndarray] = (), **named: np.ndarray) -> None:
    """Writes arrays to an .npz file, under a temporary name until it is whole; `named` ones by their names."""
    temporary = path.with_suffix(".temp")
    with temporary.open("wb") as stream:
        np.savez(stream, *arrays, **named)
    os.replace(temporary, path)


def load_arrays(path: pathlib.Path) -> list[np.ndarray]:
    """The arrays of a file that `save_arrays` wrote, in their order."""
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays.files]


def clear_leftovers(directory: pathlib.Path) -> None:
    """Removes what a start that was killed left under temporary names, TFF's own included."""
    for leftover in (*directory.glob("*_temp[0-9]*"), *directory.glob("*.temp")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


@contextlib.contextmanager
def as_os_errors(path: pathlib.Path) -> Iterator[None]:
    """Where TensorFlow writes below `path`: its errors of the file system become OSErrors that name it."""
    try:
        yield
    except tuple(_ERRNO) as error:
        number = next(number for kind, number in _ERRNO.items() if isinstance(error, kind))
        raise OSError(number, os.strerror(number), str(path)) from error
