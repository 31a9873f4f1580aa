"""Converts a by-writer archive to the SQLite form of TFF's `SqlClientData` and of Federated EMNIST's file.

    python -m tff_personalization.tools.convert_archive ARCHIVE.npz OUT.sqlite [--seed=0]

The splits are all_train and all_test and, if there are digits, digits_only_train and digits_only_test. The clients that
the archive holds out are in the test splits only. As in Federated EMNIST, pixels are 1.0 for background and 0.0 for
ink. A separate table holds the archive's description, so that converted data is not mistaken for other data.
"""

import contextlib
import dataclasses
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import tqdm
from absl import flags

from tff_personalization import errors, startup
from tff_personalization.tasks import archives, sources
from tff_personalization.tasks.sources import sqlite

_NUM_DIGITS = 10
_TABLES = """
    CREATE TABLE examples (
        split_name TEXT NOT NULL, client_id TEXT NOT NULL, serialized_example_proto BLOB NOT NULL);
    CREATE TABLE client_metadata (client_id TEXT NOT NULL, split_name TEXT NOT NULL, num_examples INTEGER NOT NULL);
    CREATE TABLE source (description TEXT NOT NULL);
"""
_INDEX = "CREATE INDEX examples_by_client ON examples (split_name, client_id)"


def convert(archive_path: str, database_path: str, seed: int) -> None:
    """Writes the by-writer archive at `archive_path` (.npz) to a new SQLite database at `database_path`.

    Raises:
        UserError: if the archive is missing or malformed, or if the database exists or cannot be written.
    """
    if os.path.exists(database_path):
        raise errors.UserError(f"{database_path} exists: choose another name, or delete it first.")
    if not (archive_path.lower().endswith(".npz") and os.path.isfile(archive_path)):
        raise errors.UserError(f"{archive_path} is not an existing .npz file: give the path of a by-writer archive.")
    archive = sources.load(
        sources.SourceOptions(client_data=archive_path, num_classes=len(archives.CLASSES), seed=seed, cache_dir="")
    )
    if archive.held_out:  # the data is split by user: the database is, too, so that the same clients are held out
        held_out = np.isin(archive.clients, archive.held_out)
        archive = dataclasses.replace(archive, is_test=held_out[archive.client_index])
    with _new_database(database_path) as connection:
        connection.executescript(_TABLES)
        connection.execute("INSERT INTO source VALUES (?)", (archive.source,))
        _write(connection, archive, sqlite.ALL_PREFIX)
        _write(connection, archive.select(archive.y < _NUM_DIGITS), sqlite.DIGITS_PREFIX)
        connection.execute(_INDEX)


@contextlib.contextmanager
def _new_database(path: str) -> Iterator[sqlite3.Connection]:
    """A database under a temporary name, which is renamed when it is whole."""
    try:
        with tempfile.TemporaryDirectory(prefix="convert_", dir=os.path.dirname(path) or ".") as directory:
            partial = os.path.join(directory, "partial.sqlite")
            with contextlib.closing(sqlite3.connect(partial)) as connection:
                yield connection
                connection.commit()
            os.rename(partial, path)
    except (OSError, sqlite3.Error) as error:
        raise errors.UserError(f"{path} cannot be written ({error}): choose another place.") from error


def _write(connection: sqlite3.Connection, archive: archives.Archive, prefix: str) -> None:
    """Adds the examples, client by client, to the splits `<prefix>train` and `<prefix>test`."""
    splits = (f"{prefix}train", f"{prefix}test")
    order = np.lexsort((archive.is_test, archive.client_index))
    rows = (
        (
            splits[int(archive.is_test[i])],
            archive.clients[archive.client_index[i]],
            _serialize(archive.x[i], archive.y[i]),
        )
        for i in tqdm.tqdm(order, desc=f"Writing {prefix}*", unit=" examples")
    )
    connection.executemany("INSERT INTO examples VALUES (?, ?, ?)", rows)
    for split, counts in zip(splits, archive.counts.tolist(), strict=True):
        connection.executemany(
            "INSERT INTO client_metadata VALUES (?, ?, ?)",
            [(client, split, count) for client, count in zip(archive.clients, counts, strict=True) if count],
        )


def _serialize(image: np.ndarray, label: int) -> bytes:
    """The `tf.Example` of an image, shape (28, 28), with ink 255 on 0."""
    import tensorflow as tf  # Imported here: it takes seconds, which a wrong path should not cost.

    pixels = 1 - image.ravel().astype(np.float32) / 255
    feature = {
        "pixels": tf.train.Feature(float_list=tf.train.FloatList(value=pixels)),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def main(argv: Sequence[str]) -> int:
    if len(argv) != 3:
        raise errors.UserError("two paths are expected: convert_archive ARCHIVE.npz OUT.sqlite")
    convert(argv[1], argv[2], flags.FLAGS.seed)
    return 0


if __name__ == "__main__":
    flags.DEFINE_integer("seed", 0, "Seed of the split into train and test parts, for an archive without a split.")
    startup.run_main(main)
