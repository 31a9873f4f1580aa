"""The train and the test part of each client: the data's own, or a split by the seed.

Data can be split by example (each client has both parts), by client (each client is in one part), or not at all (all of
it is called train).
"""

import dataclasses

import numpy as np

from tff_personalization.tasks import archives


def resolve(archive: archives.Archive, num_classes: int, rng: np.random.Generator) -> archives.Archive:
    """The data with a split of clients that are in one part only, 80:20 at random. Of characters, keeps some classes.

    Data that is split by client holds out the clients of its test part (`held_out`).

    Args:
        archive: the data as it was read.
        num_classes: how many of the first characters are used, such as 10 for digits. Whether a client is in one part
            only is decided by all classes.
        rng: source of the random split.
    """
    trains, tests = archive.counts > 0
    train_only, test_only = np.flatnonzero(trains & ~tests), np.flatnonzero(tests & ~trains)
    alone, everybody = np.flatnonzero(trains ^ tests), (trains | tests).sum()
    if isinstance(archive, archives.CharacterArchive) and len(archive.classes) > num_classes:
        archive = archive.select(archive.y < num_classes, classes=archive.classes[:num_classes])
    if archive.parts_as_meant and len(alone) < everybody:
        return archive
    if not (archive.counts.sum(axis=0)[alone] > 1).any() or len(test_only) == everybody:
        return archive
    split = np.isin(archive.client_index, alone)
    labels = archive.y[split] if archive.y.ndim == 1 else np.zeros(split.sum(), int)
    is_test = archive.is_test.copy()
    is_test[split] = archives.split_by_client(labels, archive.client_index[split], rng)
    changes: dict = {"is_test": is_test}
    if not len(test_only) and len(train_only) == everybody:
        note = "The data is not split: each client's examples are split 80:20 into train and test, by seed."
    elif len(alone) == everybody:
        changes["held_out"] = tuple(archive.clients[i] for i in test_only)
        note = (
            f"The data is split by user: its {len(test_only)} test clients are held out, and each client's own "
            "examples are split 80:20 into train and test, by seed."
        )
    else:
        note = (
            f"{len(alone)} of {everybody} clients are in one part only ({len(train_only)} in train, {len(test_only)} "
            "in test): their examples are split 80:20 into train and test, by seed."
        )
    return dataclasses.replace(archive, notes=(*archive.notes, note), **changes)
