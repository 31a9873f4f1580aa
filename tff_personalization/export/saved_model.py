"""Writes the global model as a SavedModel of ordinary Keras layers, free of this project."""

import pathlib

import tensorflow as tf

from tff_personalization.export import global_model


def save(found: global_model.GlobalModel, path: pathlib.Path) -> None:
    """Writes a SavedModel, whose `serving_default` gives `logits` and `probabilities` of `x`; Keras loads it too.

    A network that ends with softmax or sigmoid gives only probabilities. A network with several inputs has Keras'
    signature.

    Raises:
        UserError: as `FinishedRun.keras_model`.
        OSError: it cannot be written.
    """
    model = found.keras
    if len(model.inputs) > 1:
        model.save(path, save_format="tf", include_optimizer=False)
        return
    probabilities = tf.keras.activations.get(found.run.task.predicts.activation)
    ends = found.keras_gives_probabilities

    @tf.function(input_signature=[tf.TensorSpec(model.input.shape, model.input.dtype, "x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        given = model(x, training=False)
        return {"probabilities": given} if ends else {"logits": given, "probabilities": probabilities(given)}

    model.save(path, save_format="tf", signatures={"serving_default": serve}, include_optimizer=False)
