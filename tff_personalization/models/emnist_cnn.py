"""The paper's convolutional network for 28×28 characters, and a linear model for tests and quick looks."""

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

    def logits_after_stem(weights: functional.Weights, h: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        kernel_3, bias_3, kernel_4, bias_4 = weights[4:]
        drop = dropout and dropout_seed is not None
        if drop:
            h = operations.dropout(h, 0.25, operations.fold_in(dropout_seed, 0))
        h = operations.relu(operations.dense(h, kernel_3, bias_3))
        if drop:
            h = operations.dropout(h, 0.5, operations.fold_in(dropout_seed, 1))
        return operations.dense(h, kernel_4, bias_4)

    return functional.SeededModel(
        initial_weights,
        stem,
        logits_after_stem,
        stem_size=4,
        head_size=2,
        x_spec=IMAGES,
        to_keras=functools.partial(keras_twins.cnn, num_classes),
        rebuilt=lambda operations: build_cnn(num_classes, np.random.default_rng(0), dropout, operations),
    )


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
