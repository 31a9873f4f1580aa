"""Federated CIFAR-100 through TFF's own loader, on small files of its schema, and TFF's network for it."""

import sqlite3

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.tasks.sources import small_files
from tff_personalization import errors
from tff_personalization.models import cifar_resnet
from tff_personalization.tasks import registry, sources
from tff_personalization.tasks.sources import tff_cifar100

TASK = registry.TASKS["cifar100"]
CLIENTS = {"train": ("0", "1", "2"), "test": ("0", "1")}
EACH = 10


def _int64(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(values)))


@pytest.fixture
def cache(tmp_path):
    """A directory with a file in TFF's form: clients of the two parts share names."""
    rng = np.random.default_rng(0)
    connection = sqlite3.connect(tmp_path / tff_cifar100.FILE_NAME)
    connection.executescript(small_files.TABLES)
    for split, clients in CLIENTS.items():
        for client in clients:
            connection.execute("INSERT INTO client_metadata VALUES (?, ?, ?)", (client, split, EACH))
            for _ in range(EACH):
                features = {"image": _int64(rng.integers(0, 256, (32, 32, 3))), "label": _int64(rng.integers(100))}
                features["coarse_label"] = _int64(rng.integers(20))
                blob = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
                connection.execute("INSERT INTO examples VALUES (?, ?, ?)", (split, client, blob))
    connection.commit()
    connection.close()
    return tmp_path


def _load(cache):
    return sources.load(small_files.options("tff", 100, cache_dir=cache), TASK.sources)


def test_images_are_those_of_tffs_loader_and_the_clients_of_its_test_part_are_held_out(cache):
    archive = _load(cache)
    TASK.check(archive)
    assert archive.clients == ("test_0", "test_1", "train_0", "train_1", "train_2")
    assert archive.held_out == ("test_0", "test_1")
    assert archive.source == "cifar100.sqlite, 5 clients"  # not CIFAR-100, which has 600
    for client in archive.clients:
        own = archive.client == client
        assert archive.is_test[own].sum() == EACH // 5
    parts = dict(zip(("train", "test"), tff.simulation.datasets.cifar100.load_data(str(cache)), strict=True))
    for part, data in parts.items():
        elements = list(data.create_tf_dataset_for_client("1").as_numpy_iterator())
        own = archive.client == f"{part}_1"
        assert archive.y[own].tolist() == [element["label"] for element in elements]
        np.testing.assert_array_equal(archive.x[own], [element["image"][4:28, 4:28] for element in elements])


def test_a_file_that_is_damaged_or_not_there_is_refused(cache, monkeypatch):
    (cache / tff_cifar100.FILE_NAME).write_bytes(b"SQLite format 3\0 and no more")
    small_files.refusal(_load, cache, names=[tff_cifar100.FILE_NAME, "download it again"])
    (cache / tff_cifar100.FILE_NAME).unlink()
    monkeypatch.setattr(tff.simulation.datasets.cifar100, "load_data", lambda cache_dir: 1 / 0)
    small_files.refusal(_load, cache, names=["--client_data=tff", tff_cifar100.FILE_NAME, "could not be downloaded"])


def test_the_network_gives_what_tffs_own_gives_for_images_as_tff_prepares_them():
    keras = cifar_resnet.build_resnet18(100)
    network = TASK.build("resnet18", np.random.default_rng(0))
    assert sum(weight.size for weight in network.initial_weights[0]) == 11_227_812
    assert [w.shape for w in network.initial_weights[0][network.head]] == [(512, 100), (100,)]
    images = np.random.default_rng(1).integers(0, 256, (2, 24, 24, 3)).astype(np.uint8)
    standardized = tf.image.per_image_standardization(tf.cast(images, tf.float32))
    (resnet,) = (layer for layer in keras.layers if isinstance(layer, tf.keras.Model))
    np.testing.assert_allclose(keras(images), resnet(standardized), atol=1e-6)
    theirs = network.to_keras(network.initial_weights[0])(tf.cast(images, tf.float32))
    ours = tf.nn.softmax(network.logits(network.initial_weights[0], images, tf.constant([1, 2])))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_its_clients_may_not_be_read_by_another_task(cache):
    with pytest.raises(errors.UserError, match="class"):
        registry.TASKS["emnist62"].check(_load(cache))
