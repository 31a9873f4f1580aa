"""The paper's network for 28×28 characters, its twin with group normalization, and a linear model for quick looks."""

import functools

import numpy as np
import tensorflow as tf

from tff_personalization.models import functional, keras_twins

IMAGES = tf.TensorSpec([None, 28, 28], tf.uint8)


def build_cnn(
    num_classes: int,
    rng: np.random.Generator,
    dropout: bool = True,
    operations: functional.Operations = functional.TENSORFLOW,
) -> functional.SeededModel:
    """Conv 32 3×3 – conv 64 3×3 – max-pool 2 – dropout ¼ – dense 128 – dropout ½ – dense `num_classes`; ReLU between.

    The network of TFF's EMNIST-62 personalization example, which the paper's experiments use (1,206,590 weights for 62
    classes). Kernels are Glorot uniform, biases zero.

    Args:
        num_classes: number of logits.
        rng: source of the initial weights.
        dropout: whether the training pass drops units.
        operations: the operations of the network; TensorFlow's, unless it is for another runtime.
    """
    initial_weights = (
        functional.glorot_uniform(rng, 3, 3, 1, 32),
        np.zeros(32, np.float32),
        functional.glorot_uniform(rng, 3, 3, 32, 64),
        np.zeros(64, np.float32),
        functional.glorot_uniform(rng, 12 * 12 * 64, 128),
        np.zeros(128, np.float32),
        functional.glorot_uniform(rng, 128, num_classes),
        np.zeros(num_classes, np.float32),
    )

    def stem(weights: functional.Weights, x: tf.Tensor) -> tf.Tensor:
        kernel_1, bias_1, kernel_2, bias_2 = weights[:4]
        h = tf.cast(x, tf.float32)[..., tf.newaxis] / 255
        h = operations.relu(tf.nn.bias_add(operations.conv2d(h, kernel_1), bias_1))
        # The maximum commutes with adding a bias and with ReLU, which then process only a quarter of the entries.
        h = operations.max_pool(operations.conv2d(h, kernel_2))
        return tf.reshape(operations.relu(tf.nn.bias_add(h, bias_2)), [-1, 12 * 12 * 64])

    return functional.SeededModel(
        initial_weights,
        stem,
        _dense_layers(dropout, operations),
        stem_size=4,
        head_size=2,
        x_spec=IMAGES,
        to_keras=functools.partial(keras_twins.cnn, num_classes),
        rebuilt=lambda operations: build_cnn(num_classes, np.random.default_rng(0), dropout, operations),
    )


def build_cnn_group_norm(num_classes: int, rng: np.random.Generator) -> functional.SeededModel:
    """The network of `build_cnn` with group normalization in place of the biases of both convolutions.

    A group has 16 channels, as in one setting of Wu and He (2018). Scales start as one, offsets as zero. There are
    1,206,686 weights for 62 classes; 192 of them are scales and offsets.

    Args:
        num_classes, rng: as in `build_cnn`.
    """

    def scale_and_offset(channels: int) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(channels, np.float32), np.zeros(channels, np.float32)

    initial_weights = (
        functional.glorot_uniform(rng, 3, 3, 1, 32),
        *scale_and_offset(32),
        functional.glorot_uniform(rng, 3, 3, 32, 64),
        *scale_and_offset(64),
        functional.glorot_uniform(rng, 12 * 12 * 64, 128),
        np.zeros(128, np.float32),
        functional.glorot_uniform(rng, 128, num_classes),
        np.zeros(num_classes, np.float32),
    )

    def stem(weights: functional.Weights, x: tf.Tensor) -> tf.Tensor:
        kernel_1, scale_1, offset_1, kernel_2, scale_2, offset_2 = weights[:6]
        h = tf.cast(x, tf.float32)[..., tf.newaxis] / 255
        h = tf.nn.relu(functional.group_norm(functional.conv2d(h, kernel_1), scale_1, offset_1, groups=2))
        h = functional.group_norm(functional.conv2d(h, kernel_2), scale_2, offset_2, groups=4)
        # The maximum commutes with ReLU, which then processes only a quarter of the entries.
        return tf.reshape(tf.nn.relu(functional.max_pool(h)), [-1, 12 * 12 * 64])

    return functional.SeededModel(
        initial_weights,
        stem,
        _dense_layers(True, functional.TENSORFLOW),
        stem_size=6,
        head_size=2,
        x_spec=IMAGES,
        normalization=(1, 2, 4, 5),
        to_keras=functools.partial(keras_twins.cnn_group_norm, num_classes),
    )


def _dense_layers(dropout: bool, operations: functional.Operations) -> functional.LogitsFn:
    """Dropout ¼ – dense – ReLU – dropout ½ – dense, with the last four weights of the network."""

    def logits(weights: functional.Weights, h: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        kernel_3, bias_3, kernel_4, bias_4 = weights[-4:]
        drop = dropout and dropout_seed is not None
        if drop:
            h = operations.dropout(h, 0.25, operations.fold_in(dropout_seed, 0))
        h = operations.relu(operations.dense(h, kernel_3, bias_3))
        if drop:
            h = operations.dropout(h, 0.5, operations.fold_in(dropout_seed, 1))
        return operations.dense(h, kernel_4, bias_4)

    return logits


def build_linear(
    num_classes: int, rng: np.random.Generator, operations: functional.Operations = functional.TENSORFLOW
) -> functional.SeededModel:
    """Softmax regression on the pixels, scaled to [0, 1]: 784 × `num_classes` weights and a bias, drawn from `rng`."""

    def stem(weights: functional.Weights, x: tf.Tensor) -> tf.Tensor:
        del weights
        return tf.reshape(tf.cast(x, tf.float32) / 255, [-1, 784])

    def logits_after_stem(weights: functional.Weights, h: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        del dropout_seed
        kernel, bias = weights
        return operations.dense(h, kernel, bias)

    initial_weights = (functional.glorot_uniform(rng, 784, num_classes), np.zeros(num_classes, np.float32))
    return functional.SeededModel(
        initial_weights,
        stem,
        logits_after_stem,
        stem_size=0,
        head_size=2,
        x_spec=IMAGES,
        to_keras=functools.partial(keras_twins.linear, num_classes),
        rebuilt=lambda operations: build_linear(num_classes, np.random.default_rng(0), operations),
    )
