"""Client data from TFF's Federated EMNIST, downloaded by TFF when it is not there yet."""

import dataclasses
import os
import tempfile

from tff_personalization import errors
from tff_personalization.tasks import client_data, sources
from tff_personalization.tasks.sources import sqlite

FILE_NAME = "emnist_all.sqlite"
_ORIGIN = f"tff-datasets-public/{FILE_NAME}.lzma"
# Train and test examples as TFF documents them, by number of classes.
_PUBLISHED_SIZE = {62: (671_585, 77_483), 10: (341_873, 40_832)}
_SOURCE = {62: "Federated EMNIST", 10: "Federated EMNIST digits"}


def load(options: sources.SourceOptions) -> client_data.WriterArchive:
    """Federated EMNIST: 3,400 writers with 62 classes, or 3,383 with 10.

    The file `emnist_all.sqlite` is kept in `options.cache_dir`, by default TFF's own `~/.tff`; what is read from it,
    as `sqlite` does. If it is not of
    the published size, it is not called Federated EMNIST but by its file name.

    Raises:
        UserError: if the file can neither be found nor downloaded, or if it is incomplete or malformed.
    """
    cache_dir = os.path.expanduser(options.cache_dir or os.path.join("~", ".tff"))
    path = os.path.join(cache_dir, FILE_NAME)
    if not os.path.exists(path):
        _download(cache_dir, only_digits=options.num_classes == 10)
    archive = sqlite.read(path, options)
    num_test = int(archive.is_test.sum())
    if (len(archive.is_test) - num_test, num_test) == _PUBLISHED_SIZE[options.num_classes]:
        archive = dataclasses.replace(archive, source=_SOURCE[options.num_classes])
    return archive


def _download(cache_dir: str, only_digits: bool) -> None:
    """Lets TFF download the file to `cache_dir`."""
    import tensorflow_federated as tff  # Here, since only a download needs it and it takes seconds.

    # TFF takes any file of the name as complete, even what an interrupted download left. So the download gets a
    # directory of its own, which goes whatever happens, and the file is moved when it is whole.
    try:
        os.makedirs(cache_dir, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download_", dir=cache_dir) as partial:
            tff.simulation.datasets.emnist.load_data(only_digits=only_digits, cache_dir=partial)
            os.replace(os.path.join(partial, FILE_NAME), os.path.join(cache_dir, FILE_NAME))
    except Exception as error:  # Of the network, HTTP, LZMA, TensorFlow, SQLite, and private ones of TFF.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise errors.UserError(
            f"--client_data=tff: {FILE_NAME} is not in {cache_dir} and could not be downloaded ({reason}): put it "
            f"there by hand, decompressed from {_ORIGIN} of Google Cloud Storage, or use --client_data=handwriting, "
            "--client_data=digits, or the path of an .npz or .sqlite file."
        ) from error
