"""Client data from TFF's federated CIFAR-100. TFF downloads it if it is missing.

TFF deals CIFAR-100's 50,000 train images to 500 clients and its 10,000 test images to 100 others, 100 images to each,
by Pachinko allocation (Reddi et al., "Adaptive Federated Optimization", 2021). Here these 100 clients are held out, and
the run's seed splits each client's images 80:20.
"""

import os
import sqlite3
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors
from tff_personalization.models import cifar_resnet
from tff_personalization.tasks import archives, conversions, sources
from tff_personalization.tasks.sources import download

FILE_NAME = "cifar100.sqlite"
_PUBLISHED_SIZE = (500, 100)  # clients


def load(options: sources.SourceOptions) -> archives.Archive:
    """The middle 24×24 pixels of the images, as TFF crops them for evaluation. Clients are called train_7 or test_7.

    The file `cifar100.sqlite` is kept in `options.cache_dir`, by default TFF's own `~/.tff`. If the numbers of clients
    differ from TFF's, records name the data by its file name, not as CIFAR-100.

    Raises:
        UserError: the file is missing and cannot be downloaded, or it is incomplete or malformed.
    """
    load_data = tff.simulation.datasets.cifar100.load_data
    path = download.database(FILE_NAME, options.cache_dir, lambda directory: load_data(cache_dir=directory), "a plugin")
    margin = (32 - cifar_resnet.CROP) // 2

    def example(element: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return element["image"][margin:-margin, margin:-margin], tf.cast(element["label"], tf.int32)

    read = {}
    try:
        for name, part in zip(("train", "test"), load_data(cache_dir=os.path.dirname(path)), strict=True):
            read[name] = conversions.from_client_data(part, None, example, cifar_resnet.CLASSES, FILE_NAME)
    except (tf.errors.OpError, sqlite3.Error, ValueError, errors.UserError) as error:
        raise errors.UserError(
            f"{path}: cannot be read as TFF's federated CIFAR-100 ({' '.join(str(error).split())[:200]}): delete it "
            "and download it again."
        ) from error
    sizes = tuple(len(archive.clients) for archive in read.values())
    source = "TFF's federated CIFAR-100" if sizes == _PUBLISHED_SIZE else f"{FILE_NAME}, {sum(sizes)} clients"
    # The two parts have different clients with the same names.
    return archives.Archive.from_names(
        np.concatenate([archive.x for archive in read.values()]),
        np.concatenate([archive.y for archive in read.values()]),
        np.concatenate([np.char.add(f"{name}_", archive.client) for name, archive in read.items()]),
        np.repeat([False, True], [len(archive.y) for archive in read.values()]),
        cifar_resnet.CLASSES,
        source,
    )
