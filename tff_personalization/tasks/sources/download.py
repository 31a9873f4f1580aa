"""Has TFF download its own data sets."""

import os
import tempfile
from collections.abc import Callable
from typing import Any

from tff_personalization import errors, homes


def database(file_name: str, cache_dir: str, load_data: Callable[[str], Any], alternatives: str) -> str:
    """The path of one of TFF's databases; downloads it if it is missing.

    Args:
        file_name: its name, such as "emnist_all.sqlite".
        cache_dir: where it is kept; "" for TFF's own `~/.tff`.
        load_data: makes TFF download it to a directory.
        alternatives: what the user can do instead, for the error message.

    Raises:
        UserError: it is missing and cannot be downloaded.
    """
    directory = homes.expand(cache_dir or os.path.join("~", ".tff"))
    if not (directory / file_name).exists() and not cache_dir:
        directory = homes.kept(".tff")
    path = directory / file_name
    if path.exists():
        return str(path)
    # TFF takes any file of this name as complete, even one of an interrupted download. So the download gets its own
    # directory, which is always deleted, and the file is moved when it is whole.
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download_", dir=directory) as partial:
            load_data(partial)
            os.replace(os.path.join(partial, file_name), path)
    except Exception as error:  # Errors of the network, HTTP, LZMA, TensorFlow, SQLite, and private ones of TFF.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise errors.UserError(
            f"--client_data=tff: {file_name} is not in {directory} and could not be downloaded ({reason}): put it "
            f"there by hand, decompressed from tff-datasets-public/{file_name}.lzma of Google Cloud Storage, or use "
            f"{alternatives}."
        ) from error
    return str(path)
