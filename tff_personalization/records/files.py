"""Writes files whole or not at all. It does not import TensorFlow."""

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
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tff_personalization import errors

_SECONDS_TO_BE_SEEN = 20.0


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file under a temporary name to the disk, then renames it. So it is never half-written.

    Raises:
        OSError: it cannot be written. The error names the file; an earlier version of it is unchanged.
    """
    write_bytes(path, text.encode())


def write_named(flag: str, path: pathlib.Path, content: str | bytes) -> pathlib.Path:
    """Writes the file that a flag names, whole or not at all, in a folder that is made if missing. Returns its path.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise errors.UserError(f"--{flag}: {path} cannot be written ({error.strerror}); give another path") from None
    return path


def check_writable(folder: pathlib.Path) -> None:
    """Raises UserError if a folder is there and nothing can be written in it. Call this before a long computation."""
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise errors.UserError(f"{folder}: it is read-only: copy it to a place that you may write to.")


def write_bytes(path: pathlib.Path, content: bytes | memoryview) -> None:
    """As `write_text`."""
    if path.exists() and not path.is_file():  # as /dev/stdout, which a rename would replace
        path.write_bytes(content)
        return
    temporary = path.with_name(f"{path.name}_temp{os.getpid()}")  # another process may write the same file
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # after a power loss, some file systems have the new name but not the content
        os.replace(temporary, path)
        wait_until_there(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


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
        write_bytes(other, path.read_bytes())


def save_arrays(path: pathlib.Path, arrays: Iterable[np.ndarray] = (), **named: np.ndarray) -> None:
    """Writes arrays to an .npz file, in the way of `write_text`; those in `named` keep their names."""
    content = io.BytesIO()  # to a file that cannot be written, ZipFile writes again when it is deleted
    np.savez(content, *arrays, **named)
    write_bytes(path, content.getbuffer())


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `save_arrays` wrote, by name, in their order.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (*errors.OF_ZIP_FILES, TypeError) as error:
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
    for leftover in directory.glob("*_temp[0-9]*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def json_text(value: Any) -> str:
    """A value as JSON. NaN and infinity become null, because JSON has neither."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
