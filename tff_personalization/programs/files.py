"""Files that are whole or not there, and the errors of writing them as Python has them."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

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


@contextlib.contextmanager
def as_os_errors(path: pathlib.Path) -> Iterator[None]:
    """Where TensorFlow writes below `path`: its errors of the file system become OSErrors that name it."""
    try:
        yield
    except tuple(_ERRNO) as error:
        number = next(number for kind, number in _ERRNO.items() if isinstance(error, kind))
        raise OSError(number, os.strerror(number), str(path)) from error
