"""Paths in home directories: `~` in a user's paths, and the default places of data."""

import functools
import os
import pathlib

from absl import logging

from tff_personalization import environment, errors


def expand(path: str | os.PathLike[str]) -> pathlib.Path:
    """Replaces `~` or `~user` in a path by the home.

    Raises:
        UserError: there is no such home. A folder named `~` is never used.
    """
    expanded = os.path.expanduser(path)
    if os.fspath(expanded).startswith("~"):
        raise errors.UserError(f"{path}: there is no home directory of that name: give the whole path.")
    return pathlib.Path(expanded)


def kept(*below_home: str) -> pathlib.Path:
    """A writable folder below the home or, after a warning, a temporary folder.

    Args:
        below_home: its path there, such as ".cache", "tff_personalization".
    """
    return _kept(expand("~"), below_home)


@functools.cache  # so that it warns once
def _kept(home: pathlib.Path, below_home: tuple[str, ...]) -> pathlib.Path:
    path = home.joinpath(*below_home)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK | os.X_OK):
            return path
        reason = "no permission"
    except OSError as error:
        reason = error.strerror
    instead = environment.temporary_folder().joinpath(*below_home)
    logging.warning("%s cannot be written (%s): %s is used; --cache_dir names another place.", path, reason, instead)
    return instead
