"""Stack Overflow through TFF's own loader and preprocessing, on small files of its schema, and TFF's network for it."""

import dataclasses
import sqlite3
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.tasks.sources import small_files
from tff_personalization.models import word_lstm
from tff_personalization.tasks import registry, sources
from tff_personalization.tasks.sources import tff_stackoverflow

TASK = registry.TASKS["stackoverflow"]
WORDS = [f"w{number}" for number in range(word_lstm.WORDS + 5)]
SENTENCES = {
    "train": {"ann": ["w0 w2 unheard", " ".join(["w1"] * 30)], "ben": ["w3"], "cat": ["w4"]},
    "heldout": {"dan": ["w1"]},
    "test": {"ann": ["w9999"], "ben": ["w5 w6"], "eve": ["w1"]},
}
OTHER, BEGIN, END = range(10_001, 10_004)


@pytest.fixture
def cache(tmp_path):
    """A directory with files in TFF's form."""
    connection = sqlite3.connect(tmp_path / tff_stackoverflow.FILE_NAME)
    connection.executescript(small_files.TABLES)
    for split, clients in SENTENCES.items():
        for client, sentences in clients.items():
            connection.execute("INSERT INTO client_metadata VALUES (?, ?, ?)", (client, split, len(sentences)))
            for tokens in sentences:
                text = {"creation_date": "2018", "tags": "python", "title": "", "tokens": tokens, "type": "question"}
                features = {
                    name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                    for name, value in text.items()
                }
                features["score"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
                blob = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
                connection.execute("INSERT INTO examples VALUES (?, ?, ?)", (split, client, blob))
    connection.commit()
    connection.close()
    lines = (f"{word} {len(WORDS) - place}\n" for place, word in enumerate(WORDS))
    (tmp_path / tff_stackoverflow.WORDS_NAME).write_text("".join(lines))
    return tmp_path


def _load(cache, num_clients=120):
    options = small_files.options("tff", TASK.num_classes, cache_dir=cache)
    return sources.load(
        dataclasses.replace(options, settings=types.SimpleNamespace(num_clients=num_clients)), TASK.sources
    )


def _padded(*ids):
    return [*ids, *[0] * (word_lstm.LENGTH - len(ids))]


def test_sentences_are_numbered_as_tff_does_and_clients_are_users_of_both_splits(cache):
    archive = _load(cache)
    TASK.check(archive)
    assert archive.clients == ("ann", "ben")
    rows = {
        (client, part): (x.tolist(), y.tolist())
        for client, part, x, y in zip(archive.client, archive.is_test, archive.x, archive.y, strict=True)
    }
    assert rows["ben", True] == (_padded(BEGIN, 6, 7, END), _padded(6, 7, END))
    assert rows["ann", True] == (_padded(BEGIN, 10_000, END), _padded(10_000, END))
    ann = [archive.x[i].tolist() for i in np.flatnonzero((archive.client == "ann") & ~archive.is_test)]
    assert ann == [_padded(BEGIN, 1, 3, OTHER, END), [BEGIN, *[2] * 19]]
    assert archive.source == "TFF's Stack Overflow, 2 of 2 users"


def test_the_requested_number_of_users_is_read(cache):
    assert len(_load(cache, num_clients=1).clients) == 1


def test_files_that_are_damaged_or_not_there_are_refused(cache, monkeypatch):
    words = cache / tff_stackoverflow.WORDS_NAME
    words.write_text("the 3\na 2\n")
    small_files.refusal(_load, cache, names=[words, "2 words, 10000 are expected"])
    words.unlink()
    monkeypatch.setattr(tff.simulation.datasets.stackoverflow, "load_word_counts", lambda **_: 1 / 0)
    small_files.refusal(_load, cache, names=[words, "put it there by hand"])
    (cache / tff_stackoverflow.FILE_NAME).write_bytes(b"SQLite format 3\0 and no more")
    words.write_text("".join(f"{word} 1\n" for word in WORDS))
    small_files.refusal(_load, cache, names=[tff_stackoverflow.FILE_NAME, "download it again"])


def test_the_network_is_tffs_and_padding_counts_nowhere():
    network = TASK.build("word_lstm", np.random.default_rng(0))
    weights = network.initial_weights[0]
    assert sum(weight.size for weight in weights) == 4_050_748
    x, y = (tf.constant([_padded(*ids)], tf.int32) for ids in ((BEGIN, 6, 7), (6, 7, END)))
    logits = network.logits(weights, x, tf.constant([1, 2]))
    np.testing.assert_allclose(logits, network.to_keras(weights)(x), atol=1e-5)
    of_words = tf.nn.sparse_softmax_cross_entropy_with_logits(y[0, :3], logits[0, :3])
    assert float(network.scoring.loss(logits, y)) == pytest.approx(float(tf.reduce_mean(of_words)), rel=1e-5)
    assert int(network.scoring.count_predictions(y)) == 3
