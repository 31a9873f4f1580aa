"""Turns TensorFlow's file errors into Python's."""

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
