"""Writes exported files whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from tff_personalization.records import files


@contextlib.contextmanager
def whole(path: pathlib.Path, suffix: str = "") -> Iterator[pathlib.Path]:
    """A temporary path with a suffix, for a file or directory. It replaces `path` when it is whole.

    Raises:
        OSError: it cannot be written, or `path` is a directory that is not a model's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not (path / "saved_model.pb").exists():
        raise IsADirectoryError(None, "Is a directory, and not one of a model", str(path))
    with tempfile.TemporaryDirectory(prefix="export_", dir=path.parent) as directory:
        temporary = pathlib.Path(directory) / f"whole{suffix}"
        with files.as_os_errors(temporary):
            yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
        files.wait_until_there(path)
