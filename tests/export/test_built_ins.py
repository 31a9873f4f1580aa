"""The operations for TensorFlow Lite against TensorFlow's own: values, gradients, and random bits."""

import numpy as np
import pytest
import tensorflow as tf

from tff_personalization.export import built_ins
from tff_personalization.models import emnist_cnn, functional

SEEDS = ([0, 0], [1, 2], [-1, -(2**31)], [2**31 - 1, -12345])


@pytest.mark.parametrize("seed", SEEDS)
def test_random_words_are_tensorflows_to_the_bit(seed):
    expected = tf.random.stateless_uniform([4 * 37], seed, minval=None, maxval=None, dtype=tf.int32)
    np.testing.assert_array_equal(built_ins.random_words(tf.constant(seed), 37), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("number", [0, 1, -7])
def test_a_seed_is_folded_in_as_tensorflow_does(seed, number):
    np.testing.assert_array_equal(
        built_ins.fold_in(tf.constant(seed), number), tf.random.fold_in(tf.constant(seed), number)
    )


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_dropout_keeps_the_same_units(rate):
    h = tf.random.stateless_normal([7, 48], [1, 1])
    seed = tf.constant([5, -6])
    np.testing.assert_array_equal(built_ins.dropout(h, rate, seed), functional.dropout(h, rate, seed))


def gradients(function, *arguments):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = function(*arguments)
    return value, tape.gradient(value, arguments, tf.random.stateless_normal(value.shape, [2, 2]))


def test_a_convolution_has_tensorflows_value_and_gradients():
    h, kernel = tf.random.stateless_normal([2, 9, 8, 3], [1, 1]), tf.random.stateless_normal([3, 3, 3, 5], [3, 3])
    ours, ours_by = gradients(built_ins.conv2d, h, kernel)
    reference, reference_by = gradients(functional.conv2d, h, kernel)
    np.testing.assert_array_equal(ours, reference)
    for one, other in zip(ours_by, reference_by, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_max_pool_has_the_value_and_the_gradient_of_the_networks_also_where_entries_tie():
    h = tf.constant(np.random.default_rng(0).integers(0, 3, (5, 6, 8, 4)), tf.float32)
    ours, ours_by = gradients(built_ins.max_pool, h)
    reference, reference_by = gradients(functional.max_pool, h)
    np.testing.assert_array_equal(ours, reference)
    np.testing.assert_array_equal(ours_by[0], reference_by[0])


def test_the_network_of_these_operations_is_the_projects():
    models = [
        emnist_cnn.build_cnn(62, np.random.default_rng(0), operations=operations)
        for operations in (functional.TENSORFLOW, built_ins.OPERATIONS)
    ]
    x = np.random.default_rng(1).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    weights = tuple(map(tf.constant, models[0].initial_weights[0]))
    for seed in (None, tf.constant([3, 4])):
        expected, actual = (model.logits(weights, x, seed) for model in models)
        np.testing.assert_allclose(actual, expected, atol=1e-6)
