"""Writes the global model as a TensorFlow Lite file of built-in operations that a device can personalize.

    infer(x)                    logits, and probabilities of labels, with the present weights
    train(x, y, dropout_seed)   one step of the personalization optimizer on a batch; the loss before it
    save()                      the values that training changes: the trained weights and the optimizer's state
    restore(…)                  restores the values of `save`
    initialize()                restores the global model, with a fresh optimizer
    metadata()                  JSON: classes, input, strategy, optimizer, epochs, batch size, the model's origin

A step is `LocalTraining.step` of the inner loop, with the network's operations replaced by those of `built_ins.py`.
Batches may have any size. The strategy decides which weights are trained; the others are constants.
"""

import dataclasses
import itertools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.lite.python import convert as tflite_convert

from tff_personalization import errors, local_training, optimizers
from tff_personalization.export import built_ins, global_model
from tff_personalization.models import functional

_SEED = tf.TensorSpec([2], tf.int32)


def _all(model: functional.SeededModel) -> list[int]:
    return list(range(len(model.initial_weights[0])))


def _head(model: functional.SeededModel) -> list[int]:
    return _all(model)[model.head]


def _biases(model: functional.SeededModel) -> list[int]:
    return [place for place, w in enumerate(model.initial_weights[0]) if w.ndim == 1]


# The strategies that a device supports, with the indices of the weights that they train.
TRAINED: dict[str, Callable[[functional.SeededModel], list[int]]] = {
    "fine_tune": _all,
    "fine_tune_head": _head,
    "fine_tune_biases": _biases,
    "fine_tune_adam": _all,
    "fine_tune_early_stopping": _all,
}


@dataclasses.dataclass(frozen=True)
class Personalization:
    """How the model is personalized on a device.

    Attributes:
        strategy: its name in `TRAINED`.
        optimizer: takes the steps.
        settings: other settings for the app: epochs, batch size.
    """

    strategy: str
    optimizer: optimizers.OptimizerSpec
    settings: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        spec = self.optimizer
        chosen = {"name": spec.name, "learning_rate": spec.learning_rate, **spec.options}
        return {"strategy": self.strategy, "optimizer": chosen, **self.settings}


def personalization(found: global_model.GlobalModel, strategy: str | None = None) -> Personalization:
    """How a run personalizes its model: by its main strategy, or by another one with the run's settings.

    Raises:
        UserError: a device does not support the strategy, or cannot train the model.
    """
    config, settings = found.run.experiment.config, found.run.experiment.values
    name = strategy or config.strategies[0]
    _portable(found)
    if name not in TRAINED:
        where = "--strategy" if strategy else f"{found.run.directory}: --strategies"
        raise errors.UserError(
            f"{where}={name}: the file cannot follow this strategy: give --strategy, one of {', '.join(TRAINED)}."
        )
    followed: dict[str, float] = {
        "epochs": config.personalization_epochs,
        "batch_size": settings["personalization_batch_size"],
    }
    if name == "fine_tune_early_stopping":
        followed["early_stopping_fraction"] = settings["early_stopping_fraction"]
    spec = found.run.experiment.optimizers["personalization"]
    if name == "fine_tune_adam":
        spec = optimizers.OptimizerSpec("adam", settings["fine_tune_adam_learning_rate"])
    return Personalization(name, spec, followed)


def metadata(found: global_model.GlobalModel, how: Personalization) -> dict[str, Any]:
    """The file's description of itself."""
    model = found.run.model
    weights = [f"weight_{place}" for place in TRAINED[how.strategy](model)]
    return {**found.metadata(), "personalization": {**how.as_json(), "trained": weights}}


def convert(found: global_model.GlobalModel, how: Personalization) -> bytes:
    """The TensorFlow Lite file.

    Raises:
        UserError: TensorFlow Lite does not support a layer of the network or the optimizer's step.
    """
    device = _OnDevice(found, how)
    try:
        return _converted(device.module, device.signatures(), resource_variables=True)
    except tflite_convert.ConverterError as error:
        raise errors.UserError(
            f"--format=tflite: TensorFlow Lite cannot train the layers of --model={found.run.experiment.config.model} "
            f"with --personalization_optimizer={how.optimizer.name}: use Dense and Conv2D layers with strides of 1 and "
            "no padding, 2×2 max-pooling and dropout, with an optimizer of TFF's, such as sgd or adam."
        ) from error


def convert_quantized(found: global_model.GlobalModel) -> bytes:
    """A file that only predicts with the global model, with int8 weights. It has `infer` and `metadata`."""
    module, predictions = tf.Module(), _predictions_of(found)
    weights = tuple(map(tf.constant, found.weights))

    @tf.function(autograph=False, input_signature=[found.run.model.input_spec[0]])
    def infer(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return predictions(found.run.model.logits(weights, x, None))

    signatures = {"infer": infer, "metadata": _metadata_signature(found.metadata())}
    return _converted(module, signatures, quantized=True)


def _portable(found: global_model.GlobalModel) -> functional.SeededModel:
    """The run's network, made of TensorFlow Lite's operations. Raises UserError if that is not possible."""
    rebuilt, name = found.run.model.rebuilt, found.run.experiment.config.model
    if rebuilt is None or found.run.task.predicts.by_place:
        reason = f"predicts {found.run.task.predicts.words}" if rebuilt else "has layers without a counterpart there"
        raise errors.UserError(
            f"--format=tflite: TensorFlow Lite cannot train --model={name}, which {reason}: choose --format=keras or "
            "saved_model."
        )
    return rebuilt(built_ins.OPERATIONS)


class _OnDevice:
    """The weights and the optimizer's state as variables, and the functions that become signatures.

    Attributes:
        module: holds the variables.
    """

    def __init__(self, found: global_model.GlobalModel, how: Personalization):
        model, places = _portable(found), TRAINED[how.strategy](found.run.model)
        initial = tuple(tf.constant(found.weights[place]) for place in places)

        def with_trained(trained: functional.Weights) -> functional.Weights:
            new = dict(zip(places, trained, strict=True))
            return tuple(new[i] if i in new else tf.constant(w) for i, w in enumerate(found.weights))

        def logits(trained: functional.Weights, x: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
            return model.logits(with_trained(trained), x, dropout_seed)

        self._x_spec, self._y_spec = found.run.model.input_spec
        self._metadata = metadata(found, how)
        self._logits = logits
        optimizer = how.optimizer.build()
        self._predictions = _predictions_of(found)
        scoring = model.scoring._replace(loss=built_ins.LOSSES[found.run.task.predicts.activation])
        of_trained = functional.PlainClassifier(logits, scoring)
        self._training = local_training.LocalTraining(of_trained, optimizer, None)
        self._weights = [f"weight_{place}" for place in places]
        self._fresh = self._training.initial_optimizer_state(initial)
        constant = optimizer.get_hparams(self._fresh)
        # The variables of each part of the optimizer's state that changes from step to step.
        self._parts = {key: _names(key, value) for key, value in self._fresh.items() if key not in constant}
        self._initial = dict(zip(self._weights, initial, strict=True)) | self._changing(self._fresh)
        self._variables = {name: tf.Variable(value, name=name) for name, value in self._initial.items()}
        self.module = tf.Module()
        self.module.kept = self._variables

    def _changing(self, state: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """The parts of the optimizer's state that change from step to step, by name."""
        named = (zip(names, tf.nest.flatten(state[key]), strict=True) for key, names in self._parts.items())
        return dict(itertools.chain.from_iterable(named))

    def _read(self, names: Sequence[str]) -> tuple[tf.Tensor, ...]:
        return tuple(self._variables[name].read_value() for name in names)

    def _state(self) -> local_training.LocalState:
        """The present weights and optimizer state, as tensors."""
        state = self._fresh.copy()
        for key, names in self._parts.items():
            state[key] = tf.nest.pack_sequence_as(state[key], self._read(names))
        return self._training.initial_state(self._read(self._weights), state)

    def signatures(self) -> dict[str, Any]:
        """The functions by the name of their signature."""

        @tf.function(autograph=False, input_signature=[self._x_spec])
        def infer(x: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._predictions(self._logits(self._read(self._weights), x, None))

        @tf.function(autograph=False, input_signature=[self._x_spec, self._y_spec, _SEED])
        def train(x: tf.Tensor, y: tf.Tensor, dropout_seed: tf.Tensor) -> dict[str, tf.Tensor]:
            after = self._training.step(self._state(), local_training.Examples(x, y), dropout_seed)
            new = dict(zip(self._weights, after.weights, strict=True)) | self._changing(after.optimizer_state)
            for name, value in new.items():
                self._variables[name].assign(value)
            return {"loss": after.loss_sum / tf.cast(after.predictions, tf.float32)}

        @tf.function(autograph=False, input_signature=[])
        def save() -> dict[str, tf.Tensor]:
            return dict(zip(self._variables, self._read(list(self._variables)), strict=True))

        specs = {name: tf.TensorSpec(value.shape, value.dtype, name) for name, value in self._initial.items()}

        @tf.function(autograph=False)
        def restore(**saved: tf.Tensor) -> dict[str, tf.Tensor]:
            for name, value in saved.items():
                self._variables[name].assign(value)
            return {"tensors": tf.constant(len(saved))}

        @tf.function(autograph=False, input_signature=[])
        def initialize() -> dict[str, tf.Tensor]:
            for name, value in self._initial.items():
                self._variables[name].assign(value)
            return {"tensors": tf.constant(len(self._initial))}

        return {
            "infer": infer,
            "train": train,
            "save": save,
            "restore": restore.get_concrete_function(**specs),
            "initialize": initialize,
            "metadata": _metadata_signature(self._metadata),
        }


def _names(key: str, value: Any) -> list[str]:
    """`step` for a part of an optimizer's state that is a tensor; `accumulator_0` … for one of several."""
    return [f"{key}_{i}" for i in range(len(value))] if tf.nest.is_nested(value) else [key]


def _predictions_of(found: global_model.GlobalModel) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """What `infer` returns for logits: real numbers have no probabilities."""
    activation = found.run.task.predicts.activation
    probabilities = tf.keras.activations.get(activation)
    if activation == "linear":
        return lambda logits: {"logits": logits}
    return lambda logits: {"logits": logits, "probabilities": probabilities(logits)}


def _metadata_signature(values: Mapping[str, Any]) -> Any:
    @tf.function(autograph=False, input_signature=[])
    def get() -> dict[str, tf.Tensor]:
        return {"json": tf.constant(json.dumps(values))}

    return get


def _converted(
    module: tf.Module, signatures: dict[str, Any], *, resource_variables: bool = False, quantized: bool = False
) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=list(signatures))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.experimental_enable_resource_variables = resource_variables
        if quantized:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()
