"""The smallest network with the parts of others: a convolution, which fails on an empty batch, and a head."""

import numpy as np
import tensorflow as tf

from tff_personalization.models import emnist_cnn, functional


def build(num_classes, rng):
    """Two filters of 7×7 pixels on patches that do not overlap, then softmax regression."""

    def stem(weights, x):
        images = tf.cast(x, tf.float32)[..., tf.newaxis] / 255
        return tf.reshape(tf.nn.conv2d(images, weights[0], strides=7, padding="VALID"), [-1, 32])

    weights = (
        rng.normal(0, 0.1, (7, 7, 1, 2)).astype(np.float32),
        functional.glorot_uniform(rng, 32, num_classes),
        np.zeros(num_classes, np.float32),
    )
    return functional.SeededModel(
        weights,
        stem,
        lambda weights, h, dropout_seed: tf.matmul(h, weights[1]) + weights[2],
        stem_size=1,
        head_size=2,
        x_spec=emnist_cnn.IMAGES,
    )


def build_normalized(num_classes, rng):
    """The same network with group normalization after the convolution."""
    kernel, *head = build(num_classes, rng).initial_weights[0]

    def stem(weights, x):
        images = tf.cast(x, tf.float32)[..., tf.newaxis] / 255
        h = tf.nn.conv2d(images, weights[0], strides=7, padding="VALID")
        return tf.reshape(functional.group_norm(h, weights[1], weights[2], groups=1), [-1, 32])

    return functional.SeededModel(
        (kernel, np.ones(2, np.float32), np.zeros(2, np.float32), *head),
        stem,
        lambda weights, h, dropout_seed: tf.matmul(h, weights[3]) + weights[4],
        stem_size=3,
        head_size=2,
        x_spec=emnist_cnn.IMAGES,
        normalization=(1, 2),
    )
