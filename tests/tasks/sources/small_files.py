"""Small client-data files for tests, and shared checks."""

import collections
import sqlite3

import numpy as np
import pytest
import tensorflow as tf

from tff_personalization import errors
from tff_personalization.tasks import sources

TABLES = """
    CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB);
    CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER);
"""


def options(client_data, num_classes=62, seed=0, cache_dir=""):
    return sources.SourceOptions(
        client_data=str(client_data),
        num_classes=num_classes,
        seed=seed,
        cache_dir=str(cache_dir),
    )


def arrays(count=12, writers=3, seed=0):
    """The arrays of a by-writer archive: bright noise in the middle of a dark image, the writers in turn."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 4:24, 4:24] = rng.integers(0, 256, (count, 20, 20))
    return {
        "images": images,
        "labels": rng.integers(0, 62, count),
        "writer": np.array([f"w{i % writers}" for i in range(count)]),
    }


def serialize(pixels, label):
    """A `tf.Example` in Federated EMNIST's form; `pixels` are floats with 1.0 for background."""
    feature = {
        "pixels": tf.train.Feature(float_list=tf.train.FloatList(value=np.ravel(pixels))),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(label))),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def serialize_snippet(snippet):
    """A `tf.Example` in the form of TFF's Shakespeare."""
    feature = {"snippets": tf.train.Feature(bytes_list=tf.train.BytesList(value=[snippet.encode()]))}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def sqlite_rows(splits=("all_train", "all_test"), clients=("f0", "f1"), per_part=3, max_label=10, seed=0):
    """Rows (split, client, pixels, label) with pixels that are whole multiples of 1/255."""
    rng = np.random.default_rng(seed)
    return [
        (split, client, rng.integers(0, 256, (28, 28)) / 255, int(rng.integers(max_label)))
        for client in clients
        for split in splits
        for _ in range(per_part)
    ]


def write_sqlite(path, rows, metadata=None):
    """Writes rows (split, client, pixels, label), or (split, client, blob); counts them unless given `metadata`."""
    if metadata is None:
        counts = collections.Counter((row[1], row[0]) for row in rows)
        metadata = [(client, split, count) for (client, split), count in counts.items()]
    connection = sqlite3.connect(path)
    connection.executescript(TABLES)
    for split, client, *example in rows:
        blob = serialize(*example) if len(example) == 2 else example[0]
        connection.execute("INSERT INTO examples VALUES (?, ?, ?)", (split, client, blob))
    connection.executemany("INSERT INTO client_metadata VALUES (?, ?, ?)", metadata)
    connection.commit()
    connection.close()
    return path


def refusal(call, *args, names):
    """The message with which `call` refuses: one line with each of the strings `names`."""
    with pytest.raises(errors.UserError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert str(name) in message
    return message
