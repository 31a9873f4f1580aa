"""A Keras model as the project's functional form: its weights are arguments, its dropout takes a seed.

The model itself is called, on ordinary tensors: while it is traced, every variable that a layer holds as an attribute
is replaced by the tensor of that weight. So nothing is created inside the computation. TFF's own
`functional_model_from_keras` builds a copy of the model there; in a graph, Keras makes a placeholder for each input of
that copy, which stays in the function and which TFF's worker cannot feed.

    network = from_keras(model, functional.ONE_PREDICTION, x_spec=…)
    network.logits(weights, x, dropout_seed)

A layer is called as Keras calls it, except: dropout draws from the seed as the built-in networks do, 2×2 max-pooling
uses `functional.max_pool`, whose gradient is faster, and the softmax or sigmoid that ends a model is left out, because
losses take logits.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tff_personalization import errors
from tff_personalization.models import functional, keras_layers, named_inputs


def from_keras(
    model: tf.keras.Model,
    scoring: functional.Scoring,
    *,
    x_spec: tf.TensorSpec,
    y_spec: tf.TensorSpec = functional.LABELS,
    inputs: named_inputs.Inputs | None = None,
    head: int | Sequence[str] = 1,
    rng: np.random.Generator | None = None,
    with_penalties: bool = True,
    operations: functional.Operations = functional.TENSORFLOW,
) -> functional.SeededModel:
    """The functional form of a Keras model.

    The stem is what comes before the first layer that draws at random, or before the head, in a model whose layers
    follow one another; in others there is none.

    Args:
        model: a `Sequential` or functional model with one output: logits, or what softmax or sigmoid makes of them.
        scoring: how its output is judged.
        x_spec: the type of a batch of examples. They are cast to what the model takes; an axis of length 1 is added at
            the end where it takes one more.
        y_spec: the type of their labels.
        inputs: the named inputs of one example, for a model that has several; examples are these, packed.
        head: the layers that make up the head, by name, or how many of the last layers with weights.
        rng: draws the initial weights by each layer's initializers; None keeps the model's own.
        with_penalties: False leaves out the losses that the model adds; otherwise a model with such losses is refused.
        operations: what it is made of; TensorFlow's, unless it is for another runtime.

    Raises:
        UserError: a layer cannot be used; the message says what to use in its place.
    """
    if with_penalties:
        keras_layers.refuse_penalties(model)
    network = _Network(model, inputs, head, operations)
    specs: dict[str, Any] = {"x_spec": x_spec, "y_spec": y_spec, "inputs": inputs}
    again = functools.partial(from_keras, model, scoring, **specs, head=head, with_penalties=False)
    return functional.SeededModel(
        network.initial_weights(rng),
        network.stem,
        network.after_stem,
        stem_size=network.stem_size,
        head_size=network.head_size,
        x_spec=x_spec,
        y_spec=y_spec,
        scoring=scoring,
        to_keras=network.with_weights,
        rebuilt=lambda operations: again(operations=operations),
    )


@dataclasses.dataclass(frozen=True)
class _Weight:
    """A trainable variable, and the attributes of layers that hold it."""

    variable: tf.Variable
    holders: list[tuple[Any, str]]


class _Network:
    """A Keras model that is called with weights as arguments: first those of the rest, then the head's."""

    def __init__(
        self,
        model: tf.keras.Model,
        inputs: named_inputs.Inputs | None,
        head: int | Sequence[str],
        operations: functional.Operations,
    ):
        keras_layers.refuse(model, inputs)
        self._model, self._inputs, self._operations = model, inputs, operations
        layers = [layer for layer in keras_layers.flat(model) if layer.trainable_weights]
        if not layers:
            raise errors.UserError(
                f"the Keras model {model.name!r} has no trainable weights: add a layer that has some."
            )
        heads = keras_layers.head_layers(model, layers, head)
        rest = [layer for layer in layers if layer not in heads]
        self._weights = [
            _Weight(v, _holders(model, v)) for v in keras_layers.variables(rest) + keras_layers.variables(heads)
        ]
        self.head_size = len(keras_layers.variables(heads))
        self._constants = _constants(model, [weight.variable for weight in self._weights])
        self._chain = keras_layers.chain(model)
        self._random = [layer for layer in keras_layers.flat(model) if isinstance(layer, tf.keras.layers.Dropout)]
        stem = keras_layers.stem(self._chain, {*map(id, heads), *map(id, self._random)})
        self._stem, self._after = self._chain[:stem], self._chain[stem:]
        self.stem_size = len(keras_layers.variables(self._stem))

    def initial_weights(self, rng: np.random.Generator | None) -> tuple[np.ndarray, ...]:
        """The weights before training, drawn from `rng`, or as the model has them."""
        drawn = {} if rng is None else keras_layers.drawn(self._model, rng)
        return tuple(drawn.get(id(w.variable), w.variable.numpy()) for w in self._weights)

    def stem(self, weights: functional.Weights, x: tf.Tensor) -> tf.Tensor:
        """The features of examples."""
        if not self._stem:
            return x
        with self._swapped(weights, None):
            return keras_layers.through(self._stem, self._as_input(x), training=False)

    def after_stem(self, weights: functional.Weights, h: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        """The logits of features."""
        training = dropout_seed is not None
        with self._swapped(weights, dropout_seed):
            if not self._stem:
                return self._model(self._as_input(h), training=training)
            return keras_layers.through(self._after, h, training=training)

    def with_weights(self, weights: Sequence[np.ndarray]) -> tf.keras.Model:
        """The Keras model itself, holding the given weights."""
        for weight, value in zip(self._weights, weights, strict=True):
            weight.variable.assign(value)
        return self._model

    def _as_input(self, x: tf.Tensor) -> Any:
        """Examples as the model takes them: in its type, with an axis of length 1 at the end where it has one."""
        if self._inputs is not None:
            return named_inputs.unpack(x, self._inputs)
        (spec,) = self._model.inputs
        if len(spec.shape) == len(x.shape) + 1 and spec.shape[-1] == 1:
            x = x[..., tf.newaxis]
        return tf.cast(x, spec.dtype)

    @contextlib.contextmanager
    def _swapped(self, weights: functional.Weights, dropout_seed: tf.Tensor | None) -> Iterator[None]:
        """While it lasts, layers hold tensors in place of variables, and calls of their own for some operations."""
        changes: list[tuple[Any, str, Any]] = []
        for weight, value in zip(self._weights, weights, strict=True):
            value = _dense_gradient(value) if _is_table(weight) else tf.convert_to_tensor(value)
            changes += [(holder, name, value) for holder, name in weight.holders]
        changes += [(holder, name, tf.constant(value)) for holder, name, value in self._constants]
        for number, layer in enumerate(self._random):
            drop = functools.partial(keras_layers.dropped, layer, self._operations, dropout_seed, number)
            changes.append((layer, "call", drop))
        for layer in keras_layers.flat(self._model):
            if (call := keras_layers.call_of(layer, self._operations)) is not None:
                changes.append((layer, "call", call))
        last = keras_layers.output_layer(self._model)
        if keras_layers.gives_probabilities(self._model):
            changes.append((last, "activation", tf.keras.activations.linear))
        missing = object()
        before = [(vars(holder), name, vars(holder).get(name, missing)) for holder, name, _ in changes]
        try:
            for holder, name, value in changes:
                vars(holder)[name] = value  # not setattr, by which Keras tracks what a layer holds
            yield
        finally:
            for attributes, name, value in before:
                if value is missing:
                    attributes.pop(name, None)
                else:
                    attributes[name] = value


def _holders(model: tf.keras.Model, variable: tf.Variable) -> list[tuple[Any, str]]:
    """The layers that hold a variable, with the names of the attributes."""
    modules = [model, *model.submodules]
    found = [(module, name) for module in modules for name, value in vars(module).items() if value is variable]
    if not found:
        raise errors.UserError(
            f"the weight {variable.name!r} of the Keras model {model.name!r} is not an attribute of a layer: set it "
            "with "
            "self.NAME = self.add_weight(…)."
        )
    return found


def _constants(model: tf.keras.Model, trained: Sequence[tf.Variable]) -> list[tuple[Any, str, np.ndarray]]:
    """What layers hold that is not trained, such as the weights of frozen layers: the holder, attribute and value."""
    known = set(map(id, trained))
    return [
        (module, name, value.numpy())
        for module in model.submodules
        for name, value in vars(module).items()
        if (isinstance(value, tf.Variable) or (tf.is_tensor(value) and hasattr(value, "numpy")))
        and id(value) not in known
    ]


def _is_table(weight: _Weight) -> bool:
    """Whether the weight is looked up by rows, as an embedding."""
    return any(isinstance(holder, tf.keras.layers.Embedding) for holder, _ in weight.holders)


@tf.custom_gradient
def _dense_gradient(table: tf.Tensor) -> tf.Tensor:
    """The table itself; its gradient is a tensor and not some rows of one, which no method would expect."""
    return tf.identity(table), tf.convert_to_tensor
