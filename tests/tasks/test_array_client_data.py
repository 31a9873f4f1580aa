"""A by-writer archive as TFF client data."""

import numpy as np
import pytest
import tensorflow as tf

from tests.tasks.test_client_data import archive
from tff_personalization.tasks import array_client_data


def shuffled_archive():
    whole = archive()
    order = np.random.default_rng(5).permutation(40)
    return whole.select(order)


def test_every_client_has_its_own_examples_in_each_part():
    source = shuffled_archive()
    for part, is_test in zip(array_client_data.to_client_data(source), (False, True), strict=True):
        assert part.client_ids == ["a", "b", "c", "d"]
        for client in part.client_ids:
            members = (source.writer == client) & (source.is_test == is_test)
            images, labels = part.examples(client)
            np.testing.assert_array_equal(images, source.images[members])
            np.testing.assert_array_equal(labels, source.labels[members])
            assert part.num_examples(client) == members.sum()


def test_tffs_ways_to_read_a_client_give_the_same_examples():
    train, _ = array_client_data.to_client_data(shuffled_archive())
    for dataset in (train.create_tf_dataset_for_client("b"), train.serializable_dataset_fn(tf.constant("b"))):
        assert dataset.element_spec == train.element_type_structure
        images, labels = (np.stack(part) for part in zip(*dataset.as_numpy_iterator(), strict=True))
        np.testing.assert_array_equal(images, train.examples("b")[0])
        np.testing.assert_array_equal(labels, train.examples("b")[1])
    everything = train.create_tf_dataset_from_all_clients(seed=0)
    assert sum(1 for _ in everything) == 32


def test_a_client_may_lack_a_part():
    source = archive(is_test=np.repeat([False, True, False, True], 10))
    train, test = array_client_data.to_client_data(source)
    assert train.num_examples("b") == 0
    assert len(test.examples("b")[0]) == 10
    assert train.examples("b")[0].shape == (0, 28, 28)


def test_an_unknown_client_is_refused():
    train, _ = array_client_data.to_client_data(archive())
    with pytest.raises(ValueError, match="'z' is not a client"):
        train.create_tf_dataset_for_client("z")
