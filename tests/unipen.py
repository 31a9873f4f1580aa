"""The by-writer archive of UNIPEN (docs/results/README.md), if the environment variable UNIPEN62 names it."""

import os
import pathlib

import pytest


def _archive() -> pathlib.Path | None:
    path = pathlib.Path(os.environ.get("UNIPEN62", "")).expanduser().absolute()
    return path if path.is_file() else None


ARCHIVE = _archive()
needed = pytest.mark.skipif(ARCHIVE is None, reason="UNIPEN62 names no archive of real handwriting")
