"""From flags to clients: reads a source, splits each client's examples, and splits the clients."""

import dataclasses
import hashlib
import json
import os
import pathlib

import numpy as np

from tff_personalization import errors, seeds
from tff_personalization.tasks import archives, client_arrays, registry, sources, splits


@dataclasses.dataclass(frozen=True)
class FederatedData:
    """All clients, each with a train and a test part, and what each client is for.

    Attributes:
        train: every client's train part.
        test: every client's test part.
        split: which clients train, validate and test.
        source: what the data is, in words; begins with "synthetic" if it was generated.
        notes: what was found when the data was read, one sentence each.
        sha256: of all examples with their clients and parts, in hexadecimal digits.
    """

    train: client_arrays.ClientArrays
    test: client_arrays.ClientArrays
    split: splits.ClientSplit
    source: str
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def synthetic(self) -> bool:
        return self.source.startswith("synthetic")


def file_of(config) -> pathlib.Path | None:
    """The file of an `ExperimentConfig`'s client data; None if they are of a named source, or the file is not there."""
    path = pathlib.Path(os.path.expanduser(config.client_data))
    named = config.client_data in registry.TASKS[config.task].sources.named
    return path if not named and path.is_file() else None


def load(config) -> FederatedData:
    """Loads the client data that an `ExperimentConfig` names and splits the clients.

    Raises:
        UserError: the source cannot be read, or the numbers of clients do not fit.
    """
    task = registry.TASKS[config.task]
    archive = sources.load(
        sources.SourceOptions(
            client_data=os.path.expanduser(config.client_data),
            num_classes=task.num_classes,
            seed=config.seed,
            cache_dir=os.path.expanduser(config.cache_dir or ""),
            num_clients=config.num_clients,
            writer_heterogeneity=config.writer_heterogeneity,
        ),
        task.sources,
    )
    if config.deal_examples_at_random:
        archive = archives.deal_at_random(archive, seeds.generator(config.seed, "deal"))
    train, test = client_arrays.to_client_data(archive)
    split = splits.split_clients(
        train.client_ids,
        seeds.generator(config.seed, "client_split"),
        config.train_clients,
        config.validation_clients,
        config.test_clients,
        archive.held_out,
    )
    if not np.sum([train.num_examples(client) for client in split.train]):
        raise errors.UserError(f"--client_data={config.client_data}: no train client has a training example.")
    return FederatedData(train, test, split, archive.source, _sha256(archive), archive.notes)


def _sha256(archive: archives.Archive) -> str:
    digest = hashlib.sha256(json.dumps([archive.writers, archive.classes]).encode())
    for array in (archive.x, archive.y, archive.writer_index, archive.is_test):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
