"""The built-in networks as Keras models of ordinary layers, for a run's weights outside this project."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

Weights = Sequence[np.ndarray]


def _divided_by_255() -> tf.keras.layers.Layer:
    """(x − 0) / √255². `Rescaling` multiplies by a rounded 1 / 255, which changes logits of a trained model by 1e-5."""
    return tf.keras.layers.Normalization(axis=None, mean=0.0, variance=255.0**2)


def _pool_and_dense(num_classes: int) -> list[tf.keras.layers.Layer]:
    """The layers after the convolutions of both convolutional networks."""
    layers = tf.keras.layers
    return [
        layers.MaxPool2D(),
        layers.Dropout(0.25),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(num_classes, name="logits"),
    ]


def cnn(num_classes: int, weights: Weights) -> tf.keras.Model:
    """`emnist_cnn.build_cnn` with these weights."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input([28, 28], dtype=tf.uint8, name="x"),
            _divided_by_255(),
            layers.Reshape([28, 28, 1]),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            *_pool_and_dense(num_classes),
        ],
        name="cnn",
    )
    model.set_weights(weights)
    return model


def cnn_group_norm(num_classes: int, weights: Weights) -> tf.keras.Model:
    """`emnist_cnn.build_cnn_group_norm` with these weights."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input([28, 28], dtype=tf.uint8, name="x"),
            _divided_by_255(),
            layers.Reshape([28, 28, 1]),
            layers.Conv2D(32, 3, use_bias=False),
            layers.GroupNormalization(2, epsilon=1e-5),
            layers.ReLU(),
            layers.Conv2D(64, 3, use_bias=False),
            layers.GroupNormalization(4, epsilon=1e-5),
            layers.ReLU(),
            *_pool_and_dense(num_classes),
        ],
        name="cnn_group_norm",
    )
    model.set_weights(weights)
    return model


def linear(num_classes: int, weights: Weights) -> tf.keras.Model:
    """`emnist_cnn.build_linear` with these weights."""
    model = tf.keras.Sequential(
        [
            tf.keras.Input([28, 28], dtype=tf.uint8, name="x"),
            _divided_by_255(),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(num_classes, name="logits"),
        ],
        name="linear",
    )
    model.set_weights(weights)
    return model


def char_lstm(num_classes: int, embedding: int, units: int, weights: Weights) -> tf.keras.Model:
    """`char_lstm.build_char_lstm` with these weights, for sequences of any length."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input([None], dtype=tf.uint8, name="x"),
            layers.Embedding(num_classes, embedding),
            layers.LSTM(units, return_sequences=True),
            layers.LSTM(units, return_sequences=True),
            layers.Dense(num_classes, name="logits"),
        ],
        name="char_lstm",
    )
    model.set_weights(_for_keras(list(weights)))
    return model


def _for_keras(weights: list[np.ndarray]) -> list[np.ndarray]:
    """The weights of `char_lstm` with the gates i, f, o and the cell's input g in the order of Keras: i, f, g, o."""
    for place in range(1, 7):
        i, f, o, g = np.split(weights[place], 4, axis=-1)
        weights[place] = np.concatenate([i, f, g, o], axis=-1)
    return weights
