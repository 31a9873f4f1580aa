"""Tasks by name: what is predicted, the networks, the sources of clients. A plugin can register its own."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors, registries
from tff_personalization.models import (
    char_lstm,
    characters,
    cifar_resnet,
    emnist_cnn,
    functional,
    keras_network,
    named_inputs,
    outputs,
    word_lstm,
)
from tff_personalization.settings import OpenChoices
from tff_personalization.tasks import archives, sources

ModelBuilder = Callable[[int, np.random.Generator], Any]
"""From the number of logits and a source of initial weights to a network: a `SeededModel`, a Keras model, a `Network`,
or a `tff.learning.models.FunctionalModel`."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A network, with what cannot be read from it.

    Attributes:
        model: a Keras model, or a `tff.learning.models.FunctionalModel`.
        head: the Keras layers of the head, by name, or the number of last layers with weights. For a functional model,
            the number of its last weights.
        keep_weights: whether a Keras model keeps its weights. Otherwise its initializers draw them by the run's seed. A
            functional model always keeps its own.
        with_penalties: False leaves out the losses that a Keras model adds, as by kernel_regularizer. Otherwise such a
            model is refused.
    """

    model: Any
    head: int | Sequence[str] | None = None
    keep_weights: bool = False
    with_penalties: bool = True


@dataclasses.dataclass(frozen=True)
class Task:
    """A task: what is predicted, and the clients' data.

    Attributes:
        predicts: what the networks predict for an example; see `outputs`.
        features: the type of one example in the client data; several, by name, for a network with named inputs.
        models: the networks to choose from by name, the default first. Each makes a network for a number of logits.
        sources: the sources of client data.
        input_words: what an example is, for users of a network without its run; by default its type.
        drawn: whether an example is a character of `archives.CLASSES` that someone can draw: uint8, shape (28, 28).
    """

    predicts: outputs.Output
    features: tf.TensorSpec | Mapping[str, tf.TensorSpec]
    models: Mapping[str, ModelBuilder]
    sources: sources.Catalogue
    input_words: str = ""
    drawn: bool = False

    @property
    def input_in_words(self) -> str:
        """The input of a network for one example, in words."""
        named = {"": self.features} if isinstance(self.features, tf.TensorSpec) else self.features
        types = (f"{name}: {spec.dtype.name} {tuple(spec.shape)}".removeprefix(": ") for name, spec in named.items())
        return self.input_words or ", ".join(types)

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each logit."""
        return self.predicts.names

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        return len(self.classes)

    @property
    def x_spec(self) -> tf.TensorSpec:
        """The type of a batch of examples."""
        one = self.features if isinstance(self.features, tf.TensorSpec) else named_inputs.packed_spec(self.features)
        return tf.TensorSpec([None, *one.shape], one.dtype)

    def build(self, model: str, rng: np.random.Generator) -> functional.SeededModel:
        """One of the networks, untrained.

        Args:
            model: its name.
            rng: draws the initial weights.

        Raises:
            UserError: the network cannot be used.
        """
        made = self.models[model](self.num_classes, rng)
        if isinstance(made, functional.SeededModel):
            return made
        network = made if isinstance(made, Network) else Network(made)
        try:
            if isinstance(network.model, tf.keras.Model):
                self._check_shapes(network.model)
                return keras_network.from_keras(
                    network.model,
                    self.predicts.scoring,
                    x_spec=self.x_spec,
                    y_spec=self.predicts.y_spec,
                    inputs=None if isinstance(self.features, tf.TensorSpec) else self.features,
                    head=1 if network.head is None else network.head,
                    rng=None if network.keep_weights else rng,
                    with_penalties=network.with_penalties,
                    activation=self.predicts.activation,
                )
            if isinstance(network.model, tff.learning.models.FunctionalModel):
                head = network.head if isinstance(network.head, int) else 2
                return functional.from_tff(
                    network.model, self.predicts.scoring, self.x_spec, self.predicts.y_spec, head_size=head
                )
        except errors.UserError as error:
            raise errors.UserError(f"--model={model}: {error}") from error
        raise errors.UserError(
            f"--model={model}: it is built as {errors.described(network.model)}: build a Keras model, a "
            "tff.learning.models.FunctionalModel or a SeededModel."
        )

    def _check_shapes(self, model: tf.keras.Model) -> None:
        """Raises UserError if a Keras model takes other examples, or gives other than a logit of each class."""
        for tensor in model.inputs or ():
            name, shape = tensor.node.layer.name, tensor.shape[1:]
            if isinstance(self.features, tf.TensorSpec):
                fitting = [self.features.shape, tf.TensorShape([*self.features.shape, 1])]
            else:  # `from_keras` refuses other names
                fitting = [self.features[name].shape if name in self.features else shape]
            if not any(map(shape.is_compatible_with, fitting)):
                raise errors.UserError(
                    f"its input {name!r} has the shape {tuple(shape)} for an example, and the task's features have "
                    f"{tuple(fitting[0])}: give both the same."
                )
        places = self.predicts.label.shape if self.predicts.by_place else []
        expected = tf.TensorShape([*places, self.num_classes])
        if model.outputs and not (found := model.outputs[0].shape[1:]).is_compatible_with(expected):
            raise errors.UserError(
                f"its output has the shape {tuple(found)} for an example, and the task needs {tuple(expected)}: a "
                "number for each of its classes, labels or numbers."
            )

    def check(self, archive: archives.Archive) -> None:
        """Raises UserError if client data does not fit the task."""
        if len(archive.classes) != self.num_classes:
            raise errors.UserError(
                f"the client data has {len(archive.classes)} classes or labels, and the task {self.num_classes}: "
                "change one of the two."
            )
        found = {"features": archive.x, "labels": archive.y}
        expected = {"features": self.x_spec, "labels": self.predicts.y_spec}
        for what, array in found.items():
            shape, dtype = expected[what].shape[1:], expected[what].dtype.as_numpy_dtype
            # Integer labels may have any size, but classes and real numbers are not interchangeable.
            same = (
                array.dtype == dtype
                if what == "features"
                else (array.dtype.kind == "f") == (np.dtype(dtype).kind == "f")
            )
            if array.shape[1:] != tuple(shape) or not same:
                raise errors.UserError(
                    f"the client data has {what} of {array.dtype} and shape (N{_tail(array.shape[1:])}), and the task "
                    f"expects {np.dtype(dtype)} and (N{_tail(tuple(shape))}), {self.predicts.words}: change one of the "
                    "two."
                )
        self._check_values(archive)

    def _check_values(self, archive: archives.Archive) -> None:
        """Raises UserError if values, or the meaning of their places, are not those of the task."""
        if archive.x.dtype.kind == "f" and not np.isfinite(archive.x).all():
            raise errors.UserError("the client data has features that are NaN or infinite: fill or drop them.")
        labels = not (self.predicts.one_class or self.predicts.by_place) and archive.y.dtype.kind != "f"
        if labels and len(archive.y) and archive.y.max() > 1:
            raise errors.UserError(
                f"the client data has labels up to {archive.y.max()}, and the task expects 0 and 1, "
                f"{self.predicts.words}: change one of the two."
            )
        if archive.classes != self.classes and sorted(archive.classes) == sorted(self.classes):
            place = next(i for i, name in enumerate(archive.classes) if name != self.classes[i])
            raise errors.UserError(
                f"class {place} is {archive.classes[place]!r} in the client data and {self.classes[place]!r} in the "
                "task: give both the same order."
            )
        expected = named_inputs.sizes(self.features) if isinstance(self.features, Mapping) else None
        if expected and archive.inputs and archive.inputs != expected:
            found, wanted = (
                ", ".join(f"{name} of {size}" for name, size in sorted(inputs.items()))
                for inputs in (archive.inputs, expected)
            )
            raise errors.UserError(
                f"the client data has the inputs {found} numbers, and the task {wanted}: give both the same."
            )


def _tail(shape: tuple[int, ...]) -> str:
    return "".join(f", {size}" for size in shape) or ","


EMNIST_MODELS: dict[str, ModelBuilder] = {
    "cnn": emnist_cnn.build_cnn,
    "cnn_group_norm": emnist_cnn.build_cnn_group_norm,
    "linear": emnist_cnn.build_linear,
}
_CHARACTER = "uint8, ink 255 on background 0, 28×28, rows from above; divided by 255 inside of the model"
_TEXT = (
    "character ids, uint8: 0 padding, 1 to 86 the characters of `classes`, 87 any other, 88 the beginning and 89 the "
    "end of what is said; the first is the beginning; a row of logits says what follows the id at its place"
)
_IMAGE = tf.TensorSpec(archives.IMAGE_SHAPE, tf.uint8)

TASKS: OpenChoices[Task] = OpenChoices()
MODELS: OpenChoices[None] = OpenChoices()
"""The names of all tasks' networks."""


def register(name: str, task: Task) -> None:
    """Makes a task a choice of `--task`, its networks of `--model`.

    Raises:
        UserError: the task's name is taken, or a part of the task is not of its type.
    """
    if isinstance(task, Task):
        _check_parts(name, task)
    registries.add(TASKS, "task", name, task, Task)
    MODELS.update(dict.fromkeys(task.models))


def _of_numbers(spec: tf.TensorSpec) -> bool:
    """Whether values of the type are arrays of numbers of a known shape."""
    numbers = spec.dtype.is_integer or spec.dtype.is_floating or spec.dtype.is_bool
    return numbers and spec.shape.is_fully_defined()


def _check_parts(name: str, task: Task) -> None:
    """Raises UserError if a part of a task is not of its type."""
    right_output = isinstance(task.predicts, outputs.Output)
    models = list(task.models.values()) if isinstance(task.models, Mapping) else []
    features = task.features.values() if isinstance(task.features, Mapping) else [task.features]
    functions = [callable(one) and not isinstance(one, tf.keras.Model) for one in models]
    of_type = {
        "predicts": right_output,
        "features": all(isinstance(spec, tf.TensorSpec) and _of_numbers(spec) for spec in features),
        "models": bool(models) and all(functions),
        "sources": isinstance(task.sources, sources.Catalogue) and bool(task.sources.named),
        "drawn": not task.drawn
        or (
            task.features == _IMAGE
            and right_output
            and task.predicts.one_class
            and set(task.classes) <= set(archives.CLASSES)
        ),
    }
    expected = {
        "predicts": "an Output, such as outputs.classes(names)",
        "features": "a tf.TensorSpec of numbers with a known shape, or several by name",
        "models": "functions by name that build a network: def network(num_logits, rng)",
        "sources": "a Catalogue with a source, such as sources.own(name=load)",
        "drawn": "False, unless an example is one character of 0-9, A-Z, a-z as uint8 of shape (28, 28)",
    }
    for part in (part for part, right in of_type.items() if not right):
        found = errors.described(getattr(task, part))
        raise errors.UserError(f"task {name!r}: {part} is {found}; expected: {expected[part]}.")


register(
    "emnist62", Task(outputs.classes(archives.CLASSES), _IMAGE, EMNIST_MODELS, sources.IMAGES, _CHARACTER, drawn=True)
)
register(
    "emnist10",
    Task(outputs.classes(archives.CLASSES[:10]), _IMAGE, EMNIST_MODELS, sources.IMAGES, _CHARACTER, drawn=True),
)
register(
    "shakespeare",
    Task(
        char_lstm.NEXT_CHARACTER,
        tf.TensorSpec([characters.SEQUENCE_LENGTH], tf.uint8),
        {"char_lstm": char_lstm.build_char_lstm},
        sources.TEXT,
        _TEXT,
    ),
)


def _resnet18(num_classes: int, rng: np.random.Generator) -> Network:
    return Network(cifar_resnet.build_resnet18(num_classes, rng), with_penalties=False)


register(
    "cifar100",
    Task(
        outputs.classes(cifar_resnet.CLASSES),
        cifar_resnet.IMAGE,
        {"resnet18": _resnet18},
        sources.CIFAR,
        "uint8 RGB, 24×24, the middle of CIFAR's 32×32; standardized inside of the model",
    ),
)
register(
    "stackoverflow",
    Task(
        word_lstm.NEXT_WORD,
        word_lstm.SENTENCE,
        {"word_lstm": word_lstm.build_word_lstm},
        sources.WORDS,
        "word ids, int32: 0 padding, 1 to 10000 TFF's most frequent words, then any other, the beginning and the end",
    ),
)
