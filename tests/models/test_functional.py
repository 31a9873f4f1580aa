"""Dropout by random bytes, and the CNN's size and gradients."""

import numpy as np
import pytest
import tensorflow as tf

from tff_personalization.models import emnist_cnn, functional


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_dropout_zeroes_the_given_share_and_keeps_the_mean(rate):
    h = tf.ones([200, 1000])
    dropped = functional.dropout(h, rate, tf.constant([1, 2])).numpy()
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / (1 - rate))}
    # 200,000 draws: four standard deviations of the share are below 0.005.
    assert (dropped == 0).mean() == pytest.approx(rate, abs=0.005)
    assert dropped.mean() == pytest.approx(1, abs=0.01)


def test_dropout_depends_only_on_its_seed():
    h = tf.ones([4, 100])
    first, again, other = (functional.dropout(h, 0.5, tf.constant(seed)) for seed in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_gradient_passes_only_through_kept_units():
    h = tf.random.stateless_normal([3, 8], [1, 1])
    with tf.GradientTape() as tape:
        tape.watch(h)
        dropped = functional.dropout(h, 0.5, tf.constant([1, 2]))
    gradient = tape.gradient(dropped, h).numpy()
    np.testing.assert_allclose(gradient, np.where(dropped.numpy() == 0, 0, 2))


def test_a_rate_that_bytes_cannot_draw_is_refused():
    with pytest.raises(ValueError, match="1/256"):
        functional.dropout(tf.ones([2, 8]), 0.1, tf.constant([1, 2]))


def test_the_cnn_has_the_papers_size():
    model = emnist_cnn.build_cnn(62, np.random.default_rng(0))
    assert sum(w.size for w in model.initial_weights[0]) == 1_206_590


def test_the_cnn_equals_the_same_network_in_keras():
    model = emnist_cnn.build_cnn(62, np.random.default_rng(0))
    keras = tf.keras.Sequential(
        [
            tf.keras.layers.Conv2D(32, 3, activation="relu", input_shape=(28, 28, 1)),
            tf.keras.layers.Conv2D(64, 3, activation="relu"),
            tf.keras.layers.MaxPool2D(),
            tf.keras.layers.Dropout(0.25),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(128, activation="relu"),
            tf.keras.layers.Dropout(0.5),
            tf.keras.layers.Dense(62),
        ]
    )
    keras.set_weights(model.initial_weights[0])
    x = np.random.default_rng(1).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    logits = model.logits(tuple(tf.constant(w) for w in model.initial_weights[0]), x, None)
    np.testing.assert_allclose(logits, keras(x[..., None] / 255.0), atol=1e-5)


def test_the_twin_with_group_normalization_has_its_size_and_equals_its_keras_model():
    model = emnist_cnn.build_cnn_group_norm(62, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    weights = [w + rng.normal(0, 0.1, w.shape).astype(np.float32) for w in model.initial_weights[0]]
    assert sum(w.size for w in weights) == 1_206_590 + 32 + 64  # two weights a channel in place of one
    x = rng.integers(0, 256, (5, 28, 28)).astype(np.uint8)
    logits = model.logits(tuple(map(tf.constant, weights)), x, None)
    np.testing.assert_allclose(logits, model.to_keras(weights)(x), rtol=1e-4, atol=1e-4)


def test_group_norm_equals_numpy():
    """Each group of each example by itself: its mean and variance over places and channels."""
    rng = np.random.default_rng(2)
    h, scale, offset = rng.normal(3, 2, (4, 5, 6, 8)), rng.normal(size=8), rng.normal(size=8)
    expected = np.empty_like(h)
    for i, j in np.ndindex(4, 2):
        group = h[i, :, :, 4 * j : 4 * j + 4]
        normalized = (group - group.mean()) / np.sqrt(group.var() + 1e-5)
        expected[i, :, :, 4 * j : 4 * j + 4] = normalized * scale[4 * j : 4 * j + 4] + offset[4 * j : 4 * j + 4]
    ours = functional.group_norm(*(tf.constant(a, tf.float32) for a in (h, scale, offset)), groups=2)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_max_pool_has_the_value_and_the_gradient_of_tensorflows_also_where_entries_tie():
    rng = np.random.default_rng(0)
    h = tf.constant(rng.integers(0, 3, (5, 6, 8, 4)), tf.float32)  # three values on four places: ties everywhere
    upstream = tf.constant(rng.normal(size=(5, 3, 4, 4)), tf.float32)
    results = []
    for pool in (functional.max_pool, lambda h: tf.nn.max_pool2d(h, 2, 2, "VALID")):
        with tf.GradientTape() as tape:
            tape.watch(h)
            pooled = pool(h)
        results.append((pooled, tape.gradient(pooled, h, upstream)))
    (ours, our_gradient), (reference, reference_gradient) = results
    np.testing.assert_array_equal(ours, reference)
    np.testing.assert_allclose(our_gradient, reference_gradient, rtol=0, atol=0)


def test_max_pool_can_be_differentiated_twice():
    """Along a line through h, f(t) = Σ pool(t h)² has the second derivative 2 Σ pool(h)²."""
    h = tf.constant(np.random.default_rng(1).normal(size=(2, 4, 4, 3)), tf.float32)
    t = tf.constant(1.0)
    with tf.GradientTape() as outer:
        outer.watch(t)
        with tf.GradientTape() as inner:
            inner.watch(t)
            value = tf.reduce_sum(functional.max_pool(t * h) ** 2)
        slope = inner.gradient(value, t)
    expected = 2 * tf.reduce_sum(tf.nn.max_pool2d(h, 2, 2, "VALID") ** 2)
    np.testing.assert_allclose(outer.gradient(slope, t), expected, rtol=1e-5)
