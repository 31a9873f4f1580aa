"""Writes the global model as a Keras model of ordinary layers: a .keras file or a SavedModel, free of this project."""

import pathlib

import tensorflow as tf

from tff_personalization.export import global_model, output
from tff_personalization.models import keras_layers


def write_keras(found: global_model.GlobalModel, path: pathlib.Path) -> None:
    """Writes a .keras file. Raises OSError if it cannot be written, and UserError as `FinishedRun.keras_model`."""
    with output.whole(path, ".keras") as temporary:
        found.run.keras_model(found.round_number).save(temporary)


def write_saved_model(found: global_model.GlobalModel, path: pathlib.Path) -> None:
    """Writes a SavedModel, whose `serving_default` gives `logits` and `probabilities` of `x`; Keras loads it too.

    A network that ends with softmax or sigmoid gives only probabilities. A network with several inputs has Keras'
    signature.

    Raises OSError if it cannot be written.
    """
    with output.whole(path) as temporary:
        _save(found, found.run.keras_model(found.round_number), temporary)


def _save(found: global_model.GlobalModel, model: tf.keras.Model, path: pathlib.Path) -> None:
    if len(model.inputs) > 1:
        model.save(path, save_format="tf", include_optimizer=False)
        return
    probabilities = tf.keras.activations.get(found.task.predicts.activation)
    ends = keras_layers.gives_probabilities(model)

    @tf.function(input_signature=[tf.TensorSpec(model.input.shape, model.input.dtype, "x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        given = model(x, training=False)
        return {"probabilities": given} if ends else {"logits": given, "probabilities": probabilities(given)}

    model.save(path, save_format="tf", signatures={"serving_default": serve}, include_optimizer=False)
