"""The global model as a Keras model of ordinary layers, as a .keras file or as a SavedModel, which need no project."""

import pathlib

import numpy as np
import tensorflow as tf

from tff_personalization.export import global_model, output
from tff_personalization.models import char_lstm


def write_keras(found: global_model.GlobalModel, path: pathlib.Path) -> None:
    """Writes a .keras file. Raises OSError if it cannot be written."""
    with output.whole(path, ".keras") as temporary:
        build(found).save(temporary)


def write_saved_model(found: global_model.GlobalModel, path: pathlib.Path) -> None:
    """Writes a SavedModel, whose `serving_default` gives `logits` and `probabilities` of `x`; Keras loads it too.

    Raises OSError if it cannot be written.
    """
    with output.whole(path) as temporary:
        _save(build(found), temporary)


def _save(model: tf.keras.Model, path: pathlib.Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec(model.input.shape, model.input.dtype, "x")])
    def serve(x):
        logits = model(x, training=False)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    model.save(path, save_format="tf", signatures={"serving_default": serve}, include_optimizer=False)


def build(found: global_model.GlobalModel) -> tf.keras.Model:
    """The Keras model, from what the project's takes to logits."""
    layers, weights = _NETWORKS[found.run.experiment.config.model], list(found.weights)
    model = layers(found.num_classes)
    model.set_weights(_for_keras(weights) if found.is_text else weights)
    return model


def _divided_by_255() -> tf.keras.layers.Layer:
    """(x − 0) / √255². `Rescaling` would multiply by a rounded 1 / 255: 1e-5 in logits of a trained model."""
    return tf.keras.layers.Normalization(axis=None, mean=0.0, variance=255.0**2)


def _cnn(num_classes: int) -> tf.keras.Model:
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            tf.keras.Input([28, 28], dtype=tf.uint8, name="x"),
            _divided_by_255(),
            layers.Reshape([28, 28, 1]),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPool2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(num_classes, name="logits"),
        ],
        name="cnn",
    )


def _linear(num_classes: int) -> tf.keras.Model:
    return tf.keras.Sequential(
        [
            tf.keras.Input([28, 28], dtype=tf.uint8, name="x"),
            _divided_by_255(),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(num_classes, name="logits"),
        ],
        name="linear",
    )


def _char_lstm(num_classes: int) -> tf.keras.Model:
    """For sequences of any length."""
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            tf.keras.Input([None], dtype=tf.uint8, name="x"),
            layers.Embedding(num_classes, char_lstm.EMBEDDING),
            layers.LSTM(char_lstm.UNITS, return_sequences=True),
            layers.LSTM(char_lstm.UNITS, return_sequences=True),
            layers.Dense(num_classes, name="logits"),
        ],
        name="char_lstm",
    )


def _for_keras(weights: list[np.ndarray]) -> list[np.ndarray]:
    """The weights of `char_lstm` with the gates i, f, o and the cell's input g in the order of Keras: i, f, g, o."""
    for place in range(1, 7):
        i, f, o, g = np.split(weights[place], 4, axis=-1)
        weights[place] = np.concatenate([i, f, g, o], axis=-1)
    return weights


_NETWORKS = {"cnn": _cnn, "linear": _linear, "char_lstm": _char_lstm}
