"""Client data from TFF's Shakespeare data set. TFF downloads it if it is missing."""

import dataclasses

from tff_personalization.tasks import archives, sources
from tff_personalization.tasks.sources import download, snippets

FILE_NAME = "shakespeare.sqlite"
_ROLES = 715  # as TFF documents it


def load(options: sources.SourceOptions) -> archives.Archive:
    """TFF's Shakespeare data: 715 speaking roles, each split into train and test snippets by LEAF.

    The file `shakespeare.sqlite` is kept in `options.cache_dir`, by default TFF's own `~/.tff`. If the number of roles
    differs from TFF's, records name the data by its file name, not as Shakespeare.

    Raises:
        UserError: the file is missing and cannot be downloaded, or it is incomplete or malformed.
    """
    path = download.database(
        FILE_NAME, options.cache_dir, _load_data, "--client_data=plays, or the path of an .sqlite file"
    )
    archive = snippets.load(dataclasses.replace(options, client_data=path))
    if len(archive.clients) == _ROLES:
        archive = dataclasses.replace(archive, source="TFF's Shakespeare")
    return archive


def _load_data(cache_dir: str) -> None:
    import tensorflow_federated as tff  # Imported here: it takes seconds, and only a download needs it.

    tff.simulation.datasets.shakespeare.load_data(cache_dir=cache_dir)
