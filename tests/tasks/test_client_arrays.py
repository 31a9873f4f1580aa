"""A by-writer archive as TFF client data."""

import numpy as np
import pytest
import tensorflow as tf

from tests.tasks.test_archives import archive
from tff_personalization.tasks import client_arrays


def shuffled_archive():
    whole = archive()
    order = np.random.default_rng(5).permutation(40)
    return whole.select(order)


def test_every_client_has_its_own_examples_in_each_part():
    source = shuffled_archive()
    for part, is_test in zip(client_arrays.to_client_data(source), (False, True), strict=True):
        assert part.client_ids == ["a", "b", "c", "d"]
        for client in part.client_ids:
            members = (source.client == client) & (source.is_test == is_test)
            images, labels = part.examples(client)
            np.testing.assert_array_equal(images, source.images[members])
            np.testing.assert_array_equal(labels, source.labels[members])
            assert part.num_examples(client) == members.sum()


def test_tffs_ways_to_read_a_client_give_the_same_examples():
    train, _ = client_arrays.to_client_data(shuffled_archive())
    for dataset in (train.create_tf_dataset_for_client("b"), train.serializable_dataset_fn(tf.constant("b"))):
        assert dataset.element_spec == train.element_type_structure
        images, labels = (np.stack(part) for part in zip(*dataset.as_numpy_iterator(), strict=True))
        np.testing.assert_array_equal(images, train.examples("b")[0])
        np.testing.assert_array_equal(labels, train.examples("b")[1])
    everything = train.create_tf_dataset_from_all_clients(seed=0)
    assert sum(1 for _ in everything) == 32


def test_a_client_may_lack_a_part():
    source = archive(is_test=np.repeat([False, True, False, True], 10))
    train, test = client_arrays.to_client_data(source)
    assert train.num_examples("b") == 0
    assert len(test.examples("b")[0]) == 10
    assert train.examples("b")[0].shape == (0, 28, 28)


def test_an_unknown_client_is_refused():
    train, _ = client_arrays.to_client_data(archive())
    with pytest.raises(ValueError, match="'z' is not a client"):
        train.create_tf_dataset_for_client("z")
    with pytest.raises(tf.errors.InvalidArgumentError, match="z is not a client"):
        list(train.serializable_dataset_fn(tf.constant("z")))
    with pytest.raises(tf.errors.InvalidArgumentError, match="z is not a client"):  # as TFF calls it
        list(tf.function(train.serializable_dataset_fn)(tf.constant("z")))


def test_examples_that_lie_client_by_client_are_not_copied():
    source = archive(is_test=np.repeat([False, True], 20), client=np.tile(np.repeat(["a", "b"], 10), 2))
    train, test = client_arrays.to_client_data(source)
    for part, place in ((train, slice(10, 20)), (test, slice(30, 40))):
        images, labels = part.examples("b")
        assert np.shares_memory(images, source.images[place])
        assert np.shares_memory(labels, source.labels[place])
        np.testing.assert_array_equal(images, source.images[place])


def test_a_client_without_an_example_is_no_client():
    source = archive()
    train, test = client_arrays.to_client_data(source.select(source.client != "c"))
    assert train.client_ids == test.client_ids == ["a", "b", "d"]


def test_more_examples_than_a_graph_holds_are_refused_before_a_graph_is_made():
    many = np.broadcast_to(np.zeros((1, 28, 28), np.uint8), (3_000_000, 28, 28))
    part = client_arrays.ClientArrays(many, np.zeros(3_000_000, np.int32), {"a": (0, 3_000_000)})
    with pytest.raises(ValueError, match=r"2\.2 GiB of examples"):
        _ = part.serializable_dataset_fn
    assert part.num_examples("a") == 3_000_000
