"""Keras layers in the functional form of a model: their order, and the operations that replace them."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from keras.src import backend

from tff_personalization import errors
from tff_personalization.models import functional, named_inputs

Layer: TypeAlias = Any  # tf.keras.layers.Layer, which type checkers do not know
NORMALIZATION = (tf.keras.layers.GroupNormalization, tf.keras.layers.LayerNormalization)
"""The layers with weights that normalize; `refuse` refuses batch normalization."""


PROBABILITIES = {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}
_ENDS = {name: (getattr(tf.keras.activations, name), function) for name, function in PROBABILITIES.items()}


def flat(model: tf.keras.Model) -> list[Layer]:
    """The layers of a model in their order. The layers of nested models replace these models."""
    found: list[Layer] = []
    for layer in model.layers:
        found += flat(layer) if isinstance(layer, tf.keras.Model) else [layer]
    return list(dict.fromkeys(found))


def output_layer(model: tf.keras.Model) -> Layer:
    """The layer that gives a model's output, also inside a nested model."""
    layer = model.outputs[0].node.layer
    return output_layer(layer) if isinstance(layer, tf.keras.Model) else layer


def probabilities_by(model: tf.keras.Model) -> str | None:
    """The name of the function with which a model ends, softmax or sigmoid; None if it gives logits or real numbers."""
    layer = output_layer(model)
    if isinstance(layer, tf.keras.layers.Softmax):
        return "softmax"
    # A function of TensorFlow that is called on a tensor of Keras becomes a layer.
    ends = getattr(layer, "activation", getattr(layer, "function", None))
    return next((name for name, functions in _ENDS.items() if ends in functions), None)


def without_probabilities(model: tf.keras.Model) -> tuple[Layer, str, Callable[..., tf.Tensor]]:
    """The change of a model that ends with softmax or sigmoid so that it gives logits: layer, attribute and value."""
    layer = output_layer(model)
    if hasattr(layer, "activation"):
        return layer, "activation", tf.keras.activations.linear
    return layer, "call", lambda inputs, *_, **__: inputs


def variables(layers: Sequence[Layer]) -> list[tf.Variable]:
    found = {id(v): v for layer in layers for v in layer.trainable_weights}
    return list(found.values())


def refuse(model: tf.keras.Model, inputs: named_inputs.Inputs | None) -> None:
    """Refuses a model whose functional form would give other results."""
    if not isinstance(model, tf.keras.Model) or not model.built or not model.outputs:  # a subclass has no outputs
        raise errors.UserError(
            "a Sequential or functional Keras model with a known input is expected: begin it with tf.keras.Input(…)."
        )
    if len(model.outputs) != 1:
        raise errors.UserError(f"the Keras model {model.name!r} has {len(model.outputs)} outputs: give it one.")
    names = [tensor.node.layer.name for tensor in model.inputs]
    if sorted(names) != sorted(inputs or names[:1]):
        raise errors.UserError(
            f"the Keras model {model.name!r} has the inputs {', '.join(names)}: the features of the task are "
            f"{', '.join(inputs) if inputs else 'one array without a name'}; give both the same names."
        )
    layers = tf.keras.layers
    for layer in (module for module in model.submodules if isinstance(module, tf.keras.layers.Layer)):
        said = f"the Keras layer {layer.name!r} ({type(layer).__name__})"
        if isinstance(layer, layers.BatchNormalization):
            raise errors.UserError(
                f"{said} keeps batch statistics, which clients do not share: use GroupNormalization or "
                "LayerNormalization."
            )
        if isinstance(layer, layers.SpectralNormalization):
            raise errors.UserError(f"{said} changes weights by itself, which nothing applies: build it without.")
        if layer.trainable_weights and {layer.compute_dtype, layer.variable_dtype} != {"float32"}:
            raise errors.UserError(
                f"{said} computes in {layer.compute_dtype} with weights of {layer.variable_dtype}: build it with "
                "dtype='float32'."
            )
        if getattr(layer, "dropout", 0) or getattr(layer, "recurrent_dropout", 0):
            raise errors.UserError(f"{said} drops units by itself, without a seed: put a Dropout layer around it.")
        random = hasattr(layer, "_random_generator") and not isinstance(layer, layers.Dropout)
        if random and not hasattr(layer, "recurrent_dropout") and not hasattr(layer, "dropout"):
            raise errors.UserError(
                f"{said} draws at random without a seed: use Dropout, or change the examples beforehand."
            )
        if isinstance(layer, layers.Dropout) and layer.rate and layer not in flat(model):
            raise errors.UserError(
                f"{said} is inside of another layer, where it gets no seed: make it a layer of the model itself."
            )
        if any(variable.constraint is not None for variable in layer.trainable_weights):
            raise errors.UserError(f"{said} has a constraint on its weights, which nothing applies: build it without.")
        if getattr(layer, "stateful", False):
            raise errors.UserError(f"{said} keeps a state from batch to batch: build it without stateful=True.")


def refuse_penalties(model: tf.keras.Model) -> None:
    """Refuses a model with its own losses, which the functional form leaves out."""
    if model.losses:
        raise errors.UserError(
            f"the Keras model {model.name!r} has losses of its own, such as a kernel_regularizer's, which nothing "
            "reads: remove them, or leave them out with with_penalties=False."
        )


def head_layers(model: tf.keras.Model, layers: list[Layer], head: int | Sequence[str]) -> list[Layer]:
    """The head's layers, among the layers with weights."""
    if isinstance(head, int):
        if not 0 < head <= len(layers):
            raise errors.UserError(
                f"head={head}: the Keras model {model.name!r} has {len(layers)} layers with weights: "
                f"give 1 to {len(layers)}."
            )
        return layers[-head:]
    names = [head] if isinstance(head, str) else list(head)
    if unknown := set(names) - {layer.name for layer in layers}:
        raise errors.UserError(
            f"head={sorted(unknown)[0]!r}: the Keras model {model.name!r} has no such layer with weights; it has "
            f"{', '.join(layer.name for layer in layers)}."
        )
    return [layer for layer in layers if layer.name in names]


def chain(model: tf.keras.Model) -> list[Layer]:
    """The layers of a purely sequential model, without its input; empty for any other model.

    A layer that is called with more than its input, such as the function that `x / 255` becomes, is not sequential.
    """
    layers = [layer for layer in model.layers if not isinstance(layer, tf.keras.layers.InputLayer)]
    if isinstance(model, tf.keras.Sequential):
        follows = True
    else:
        before: list[Any] = list(model.inputs)
        follows = len(before) == 1
        for layer in layers:
            calls = [(*node.call_args, *node.call_kwargs.values()) for node in layer.inbound_nodes]
            follows = follows and len(calls) == 1 and len(calls[0]) == 1 and calls[0][0] is before[0]
            before = [layer.output] if follows else before
    # A mask belongs to a tensor and would be lost at the end of the stem.
    masks = any(isinstance(layer, tf.keras.layers.Masking) or getattr(layer, "mask_zero", False) for layer in layers)
    return layers if follows and not masks else []


def stem(chain: Sequence[Layer], after: set[int]) -> int:
    """The number of layers of a chain before the first one in `after`, or that may differ in training."""
    for place, layer in enumerate(chain):
        inside = flat(layer) if isinstance(layer, tf.keras.Model) else [layer]
        if any(id(one) in after or _may_differ_in_training(one) for one in inside):
            return place
    return 0


def _may_differ_in_training(layer: Layer) -> bool:
    """Whether code that is not Keras' own learns whether it is called in training."""
    if isinstance(layer, tf.keras.layers.Lambda):
        return layer._fn_expects_training_arg
    return layer._expects_training_arg and not type(layer).__module__.startswith("keras.")


def through(layers: Sequence[Layer], h: tf.Tensor, training: bool) -> tf.Tensor:
    for layer in layers:
        h = layer(h, training=training) if layer._expects_training_arg else layer(h)
    return h


def dropped(
    layer: tf.keras.layers.Dropout,
    operations: functional.Operations,
    seed: tf.Tensor | None,
    number: int,
    inputs: tf.Tensor,
    training: bool | None = None,
) -> tf.Tensor:
    """The output of a dropout layer, by the seed. `number` counts the model's dropout layers from 0."""
    del training
    if seed is None or layer.rate == 0:
        return inputs
    seed = operations.fold_in(seed, number)
    shape, units = layer._get_noise_shape(inputs), int(np.prod(inputs.shape[1:]))
    if shape is None and not (256 * layer.rate) % 1 and not units % 4:
        flat = operations.dropout(tf.reshape(inputs, [-1, units]), layer.rate, seed)
        return tf.reshape(flat, tf.shape(inputs))
    return tf.nn.experimental.stateless_dropout(inputs, layer.rate, seed, noise_shape=shape)


def call_of(layer: Layer, operations: functional.Operations) -> Callable[..., tf.Tensor] | None:
    """The function that replaces Keras' own code of a layer; None to keep Keras' code."""
    kind, layers = type(layer), tf.keras.layers
    if kind is layers.MaxPooling2D and _plain(layer, pool_size=(2, 2), strides=(2, 2)):
        rows, columns = layer.input_shape[1:3]
        return None if not rows or not columns or rows % 2 or columns % 2 else operations.max_pool
    if operations is functional.TENSORFLOW:
        return None
    if kind is layers.Conv2D and _plain(layer, strides=(1, 1), dilation_rate=(1, 1), groups=1):
        return lambda inputs: _activated(layer, operations, operations.conv2d(inputs, layer.kernel))
    if kind is layers.Dense and len(layer.input_shape) == 2 and layer.use_bias:
        return lambda inputs: _activation(layer, operations)(operations.dense(inputs, layer.kernel, layer.bias))
    return None


def _plain(layer: Layer, **settings: Any) -> bool:
    """Whether a layer of images has these settings, channels last and no padding."""
    wanted = {"padding": "valid", "data_format": "channels_last", **settings}
    return all(getattr(layer, name) == value for name, value in wanted.items())


def _activated(layer: Layer, operations: functional.Operations, h: tf.Tensor) -> tf.Tensor:
    return _activation(layer, operations)(tf.nn.bias_add(h, layer.bias) if layer.use_bias else h)


def _activation(layer: Layer, operations: functional.Operations) -> Callable[[tf.Tensor], tf.Tensor]:
    return operations.relu if layer.activation is tf.keras.activations.relu else layer.activation


def drawn(model: tf.keras.Model, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """New values of the trainable variables by id, from copies of the layers with seeded initializers."""
    values: dict[int, np.ndarray] = {}
    # Initializers that a layer's configuration does not have ask Keras' own generator for a seed.
    keras_seeds = backend._SEED_GENERATOR
    before = getattr(keras_seeds, "generator", None)
    keras_seeds.generator = types.SimpleNamespace(randint=lambda least, end: int(rng.integers(least, int(end))))
    try:
        for layer in flat(model):
            if layer.trainable_weights:
                values |= _drawn_by(layer, rng)
    finally:
        keras_seeds.generator = before
    return values


def _drawn_by(layer: Layer, rng: np.random.Generator) -> dict[int, np.ndarray]:
    try:
        config = _with_seeds(layer.get_config(), rng)
        own = {name: getattr(layer, name, None) for name in config}
        # Keras writes a function as its name or code, and may not read it.
        config |= {name: value for name, value in own.items() if isinstance(value, types.FunctionType)}
        copy = type(layer).from_config(config)
        copy.build_from_config(layer.get_build_config())
    except (TypeError, ValueError, NotImplementedError) as error:
        raise errors.UserError(
            f"the Keras layer {layer.name!r} ({type(layer).__name__}) cannot be built again from its configuration, "
            f"to draw its weights ({' '.join(str(error).split())[:200]}): correct its get_config, or keep the weights "
            "of the model with registry.Network(model, keep_weights=True)."
        ) from error
    values: dict[int, np.ndarray] = {}
    mine, its = layer.weights, copy.weights
    if len(mine) != len(its):  # layers inside make weights when they are called, as in attention
        mine, its = (one._trainable_weights + one._non_trainable_weights for one in (layer, copy))
        for inner in layer._flatten_layers(recursive=False, include_self=False):
            values |= _drawn_by(inner, rng)
    return values | {id(v): new.numpy() for v, new in zip(mine, its, strict=True)}


def _with_seeds(config: Any, rng: np.random.Generator) -> Any:
    """A layer's configuration, with a seed for each random initializer."""
    if isinstance(config, Mapping):
        return {
            name: int(rng.integers(2**31)) if name == "seed" and value is None else _with_seeds(value, rng)
            for name, value in config.items()
        }
    return [_with_seeds(part, rng) for part in config] if isinstance(config, list) else config
