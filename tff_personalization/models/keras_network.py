"""Converts a Keras model to the project's functional form: weights are arguments, and dropout takes a seed.

The model itself is called on ordinary tensors. During tracing, each variable that a layer holds as an attribute is
replaced by the tensor of that weight. So nothing is created inside the computation. TFF's own
`functional_model_from_keras` builds a copy of the model there. In a graph, Keras makes a placeholder for each input of
that copy; it stays in the function, and TFF's worker cannot feed it.

    network = from_keras(model, functional.ONE_PREDICTION, x_spec=…)
    network.logits(weights, x, dropout_seed)

A layer is called as Keras calls it, with three exceptions. Dropout draws from the seed, as in the built-in networks.
2×2 max-pooling uses `functional.max_pool`, whose gradient is faster. A final softmax or sigmoid that makes
probabilities is left out, because losses take logits.
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
    activation: str | None = None,
    operations: functional.Operations = functional.TENSORFLOW,
) -> functional.SeededModel:
    """The functional form of a Keras model.

    In a sequential model, the stem is the part before the first random layer, or before the head. Other models have no
    stem.

    Args:
        model: a `Sequential` or functional model with one output: logits, or their softmax or sigmoid.
        scoring: the loss and the right predictions of its output.
        x_spec: the type of a batch of examples. They are cast to the model's input type. A last axis of length 1 is
            added if the model has one more axis.
        y_spec: the type of their labels.
        inputs: the named inputs of one example, for a model with several; examples are these inputs, packed.
        head: the layers of the head, by name, or the number of last layers with weights.
        rng: draws the initial weights by each layer's initializers; None keeps the model's own.
        with_penalties: False leaves out the losses that the model adds. Otherwise a model with such losses is refused.
        activation: makes probabilities of logits, as `outputs.Output.activation`. No other softmax or sigmoid may end
            the model, and with "linear" its end is a part of it. None: either may end it, and is left out.
        operations: the operations of the network; TensorFlow's, unless it is for another runtime.

    Raises:
        UserError: a layer cannot be used; the message says what to use instead.
    """
    if with_penalties:
        keras_layers.refuse_penalties(model)
    keras_layers.refuse(model, inputs)
    ends = keras_layers.probabilities_by(model)
    if ends and activation not in (None, "linear", ends):
        raise errors.UserError(
            f"the Keras model {model.name!r} ends with {ends}, and the task's probabilities come from {activation}: "
            f"end it with {activation}, or with neither."
        )
    network = _Network(model, inputs, head, operations, end=None if activation == "linear" else ends)
    if operations is functional.TENSORFLOW:
        network.check(x_spec, activation)
    specs: dict[str, Any] = {"x_spec": x_spec, "y_spec": y_spec, "inputs": inputs}
    again = functools.partial(
        from_keras, model, scoring, **specs, head=head, with_penalties=False, activation=activation
    )
    return functional.SeededModel(
        network.initial_weights(rng),
        network.stem,
        network.after_stem,
        stem_size=network.stem_size,
        head_size=network.head_size,
        x_spec=x_spec,
        y_spec=y_spec,
        scoring=scoring,
        normalization=network.normalization,
        dense_head=operations is not functional.TENSORFLOW or network.has_dense_head(x_spec),
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
        end: str | None,
    ):
        self._end = end  # the function that is left out
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
        self.normalization = [
            place
            for place, weight in enumerate(self._weights)
            if any(isinstance(holder, keras_layers.NORMALIZATION) for holder, _ in weight.holders)
        ]
        self._constants = _constants(model, [weight.variable for weight in self._weights])
        self._chain = keras_layers.chain(model)
        self._random = [layer for layer in keras_layers.flat(model) if isinstance(layer, tf.keras.layers.Dropout)]
        stem = keras_layers.stem(self._chain, {*map(id, heads), *map(id, self._random)})
        self._stem, self._after = self._chain[:stem], self._chain[stem:]
        self.stem_size = len(keras_layers.variables(self._stem))

    def initial_weights(self, rng: np.random.Generator | None) -> tuple[np.ndarray, ...]:
        """The weights before training, drawn from `rng`, or the model's own."""
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
                return _only(self._model(self._as_input(h), training=training))
            return keras_layers.through(self._after, h, training=training)

    def check(self, x_spec: tf.TensorSpec, activation: str | None) -> None:
        """Compares the results with Keras' own, for two examples of zeros and ones.

        Raises:
            UserError: they differ, or Keras' own are probabilities that were not recognized as such.
        """
        x, name = _examples(x_spec), self._model.name
        try:
            expected = _only(self._model(self._as_input(x), training=False)).numpy()
        except (ValueError, TypeError, tf.errors.OpError):  # the model does not take such examples
            return
        several = activation == "softmax" and not self._end and expected.shape[-1] > 1
        if several and expected.min() >= 0 and np.allclose(expected.sum(-1), 1, atol=1e-5):
            raise errors.UserError(
                f"the Keras model {name!r} gives probabilities, and training needs logits: make softmax its last "
                "layer, or leave it out."
            )
        try:
            found = self._logits(tuple(weight.variable for weight in self._weights), x)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise errors.UserError(
                f"the layers of the Keras model {name!r} cannot be called with weights as arguments "
                f"({' '.join(str(error).split())[:200]}): build it from layers of Keras."
            ) from error
        found = (keras_layers.PROBABILITIES[self._end](found) if self._end else found).numpy()
        size = max(1.0, np.abs(expected).max(initial=0, where=np.isfinite(expected)))
        if not np.allclose(found, expected, rtol=1e-3, atol=1e-4 * size, equal_nan=True):
            raise errors.UserError(
                f"the Keras model {name!r} gives other results here than in Keras: use its last layer once, and call "
                "no layer with training=True."
            )

    def has_dense_head(self, x_spec: tf.TensorSpec) -> bool:
        """Whether the logits are those of a dense layer, the head, and nothing changes them after it."""
        weights, x = [weight.variable.numpy() for weight in self._weights], _examples(x_spec)
        if [weight.ndim for weight in weights[len(weights) - self.head_size :]] != [2, 1]:
            return False
        *rest, kernel, bias = weights
        kernel = np.random.default_rng(0).normal(size=kernel.shape).astype(np.float32)  # both signs, for each network
        bias = np.resize(np.array([-10, 10], np.float32), bias.shape)  # such as ReLU, which small logits may not show
        try:
            h = self._logits((*rest, np.eye(len(kernel), dtype=np.float32), np.zeros(len(kernel), np.float32)), x)
            logits = self._logits((*rest, kernel, bias), x)
            return np.allclose(functional.dense(h, kernel, bias), logits, rtol=1e-4, atol=1e-3, equal_nan=True)
        except (ValueError, tf.errors.OpError):  # the layers after it need the shape of logits
            return False

    def _logits(self, weights: functional.Weights, x: tf.Tensor) -> tf.Tensor:
        return self.after_stem(weights, self.stem(weights, x), None)

    def with_weights(self, weights: Sequence[np.ndarray]) -> tf.keras.Model:
        """The Keras model itself, holding the given weights."""
        for weight, value in zip(self._weights, weights, strict=True):
            weight.variable.assign(value)
        return self._model

    def _as_input(self, x: tf.Tensor) -> Any:
        """Examples in the model's input type, with a last axis of length 1 if the model has one."""
        if self._inputs is not None:
            return named_inputs.unpack(x, self._inputs)
        (spec,) = self._model.inputs
        if len(spec.shape) == len(x.shape) + 1 and spec.shape[-1] == 1:
            x = x[..., tf.newaxis]
        return tf.cast(x, spec.dtype)

    @contextlib.contextmanager
    def _swapped(self, weights: functional.Weights, dropout_seed: tf.Tensor | None) -> Iterator[None]:
        """A context in which layers hold tensors instead of variables, and some layers call other operations."""
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
        if self._end:
            changes.append(keras_layers.without_probabilities(self._model))
        missing = object()
        before = [(vars(holder), name, vars(holder).get(name, missing)) for holder, name, _ in changes]
        try:
            for holder, name, value in changes:
                vars(holder)[name] = value  # not setattr, which Keras tracks
            yield
        finally:
            for attributes, name, value in before:
                if value is missing:
                    attributes.pop(name, None)
                else:
                    attributes[name] = value


def _only(output: Any) -> tf.Tensor:
    """The output of a Keras model, which may be in a list or a dict."""
    (only,) = tf.nest.flatten(output)
    return only


def _examples(x_spec: tf.TensorSpec) -> tf.Tensor:
    """Two examples of zeros and ones, which most networks take: as pixels, as ids of words, as real numbers."""
    shape = [2, *(size or 1 for size in x_spec.shape[1:])]
    return tf.constant(np.random.default_rng(0).integers(0, 2, shape), x_spec.dtype)


def _holders(model: tf.keras.Model, variable: tf.Variable) -> list[tuple[Any, str]]:
    """The layers that hold a variable, with the names of the attributes."""
    modules = [model, *model.submodules]
    found = [(module, name) for module in modules for name, value in vars(module).items() if value is variable]
    if not found:
        raise errors.UserError(
            f"the weight {variable.name!r} of the Keras model {model.name!r} is not an attribute of a layer: set it "
            "with self.NAME = self.add_weight(…)."
        )
    return found


def _constants(model: tf.keras.Model, trained: Sequence[tf.Variable]) -> list[tuple[Any, str, np.ndarray]]:
    """The untrained values that layers hold, such as weights of frozen layers: holder, attribute and value."""
    known = set(map(id, trained))
    return [
        (module, name, value.numpy())
        for module in model.submodules
        for name, value in vars(module).items()
        if (isinstance(value, tf.Variable) or (tf.is_tensor(value) and hasattr(value, "numpy")))
        and id(value) not in known
    ]


def _is_table(weight: _Weight) -> bool:
    """Whether the weight is looked up by rows, like an embedding."""
    return any(isinstance(holder, tf.keras.layers.Embedding) for holder, _ in weight.holders)


@tf.custom_gradient
def _dense_gradient(table: tf.Tensor) -> tf.Tensor:
    """The table itself, with a dense gradient: methods do not expect a gradient of only some rows."""
    return tf.identity(table), tf.convert_to_tensor
