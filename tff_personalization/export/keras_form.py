"""The global model as a Keras model of ordinary layers, as a .keras file or as a SavedModel, which need no project."""

import pathlib

import tensorflow as tf

from tff_personalization import errors
from tff_personalization.export import global_model, output


def write_keras(found: global_model.GlobalModel, path: pathlib.Path) -> None:
    """Writes a .keras file. Raises OSError if it cannot be written."""
    with output.whole(path, ".keras") as temporary:
        build(found).save(temporary)


def write_saved_model(found: global_model.GlobalModel, path: pathlib.Path) -> None:
    """Writes a SavedModel, whose `serving_default` gives `logits` and `probabilities` of `x`; Keras loads it too.

    A network that ends with softmax or sigmoid gives only probabilities; one with several inputs has the signature of
    Keras.

    Raises OSError if it cannot be written.
    """
    with output.whole(path) as temporary:
        _save(found, build(found), temporary)


def _save(found: global_model.GlobalModel, model: tf.keras.Model, path: pathlib.Path) -> None:
    if len(model.inputs) > 1:
        model.save(path, save_format="tf", include_optimizer=False)
        return
    probabilities = tf.keras.activations.get(found.task.predicts.activation)
    ends = getattr(model.layers[-1], "activation", None) in (tf.keras.activations.softmax, tf.keras.activations.sigmoid)

    @tf.function(input_signature=[tf.TensorSpec(model.input.shape, model.input.dtype, "x")])
    def serve(x):
        given = model(x, training=False)
        return {"probabilities": given} if ends else {"logits": given, "probabilities": probabilities(given)}

    model.save(path, save_format="tf", signatures={"serving_default": serve}, include_optimizer=False)


def build(found: global_model.GlobalModel) -> tf.keras.Model:
    """The Keras model, from what the project's takes to logits; one of a plugin is given back as it was built.

    Raises:
        UserError: the network is made of other things than Keras layers.
    """
    model = found.run.model
    if model.to_keras is None:
        raise errors.UserError(
            f"{found.run.directory}: --model={found.run.experiment.config.model} is no Keras model and has no twin "
            "among them (SeededModel's to_keras): give it one."
        )
    return model.to_keras(found.weights)
