"""Client data from TFF's Federated EMNIST. TFF downloads it if it is missing."""

import dataclasses

from tff_personalization.tasks import archives, sources
from tff_personalization.tasks.sources import download, sqlite

FILE_NAME = "emnist_all.sqlite"
# Train and test examples as TFF documents them, by number of classes.
_PUBLISHED_SIZE = {62: (671_585, 77_483), 10: (341_873, 40_832)}
_SOURCE = {62: "Federated EMNIST", 10: "Federated EMNIST digits"}


def load(options: sources.SourceOptions) -> archives.CharacterArchive:
    """Federated EMNIST: 3,400 writers with 62 classes, or 3,383 with 10.

    The file `emnist_all.sqlite` is kept in `options.cache_dir`, by default TFF's own `~/.tff`. Its examples are cached
    as in `sqlite`. If it does not have the published size, records name the data by its file name, not as Federated
    EMNIST.

    Raises:
        UserError: the file is missing and cannot be downloaded, or it is incomplete or malformed.
    """
    path = download.database(
        FILE_NAME,
        options.cache_dir,
        lambda directory: _load_data(directory, only_digits=options.num_classes == 10),
        "--client_data=handwriting, --client_data=digits, or the path of an .npz or .sqlite file",
    )
    archive = sqlite.load(dataclasses.replace(options, client_data=path))
    num_test = int(archive.is_test.sum())
    if (len(archive.is_test) - num_test, num_test) == _PUBLISHED_SIZE[options.num_classes]:
        archive = dataclasses.replace(archive, source=_SOURCE[options.num_classes])
    return archive


def _load_data(cache_dir: str, only_digits: bool) -> None:
    import tensorflow_federated as tff  # Imported here: it takes seconds, and only a download needs it.

    tff.simulation.datasets.emnist.load_data(only_digits=only_digits, cache_dir=cache_dir)
