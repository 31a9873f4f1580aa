"""The parts of adapting a global model to a client: the client, its curve, the loop over epochs.

A strategy is a function from a client and a `Tuning` to a `Curve`: how good the model is before (epoch 0) and after
each epoch of adapting it. For the adapted model itself, the same function returns the weights instead; see
`adapted_weights`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import global_weights, local_training, optimizers
from tff_personalization.models import functional
from tff_personalization.settings import Group, Setting

Weights = tuple[tf.Tensor, ...]
S = TypeVar("S", bound=Group)
BATCH_SIZE = Setting(20, "Examples in a step of fine-tuning.", theme="personalization", least=1)


def _learning_rate(text: str) -> float:
    rate = float(text)
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError
    return rate


class FineTuning(Group):
    """The settings of strategies that train on the client's data with the personalization optimizer."""

    personalization = optimizers.PERSONALIZATION
    personalization_batch_size = BATCH_SIZE
    personalization_learning_rates: Setting[list[float]] = Setting(
        [],
        "Learning rates of the personalization optimizer to choose from on the validation clients, together with the "
        "strategy and the epoch, such as 0.005,0.02,0.1. Default: only --personalization_learning_rate.",
        theme="personalization",
        item=(_learning_rate, "a positive, finite number"),
    )


@dataclasses.dataclass(frozen=True)
class Tuning(Generic[S]):
    """The tuning of a strategy.

    Attributes:
        optimizer: the personalization optimizer.
        epochs: E, the epochs of local training.
        batch_size: examples a step.
        settings: the strategy's own settings.
    """

    optimizer: tff.learning.optimizers.Optimizer
    epochs: int
    batch_size: int
    settings: S


class Curve(NamedTuple):
    """The results of the adapted model on a client's test part, before (epoch 0) and after each epoch of adapting it.

    Attributes:
        loss_sum: float32, shape (E + 1,), the sum of the losses of the test examples (nats).
        correct: shape (E + 1,), the number of right predictions; see `functional.Scoring.score`.
    """

    loss_sum: tf.Tensor
    correct: tf.Tensor


# Maps a classifier, its weights and the test part to a strategy's result for an epoch.
JudgeFn = Callable[[functional.Classifier, Weights, local_training.Examples], Any]


def _judge(model: functional.Classifier, weights: Weights, test: local_training.Examples) -> Curve:
    return Curve(*local_training.evaluate(model, weights, test))


@dataclasses.dataclass(eq=False)
class Client:
    """A client under evaluation, inside the computation. Results that strategies share are computed once, at first use.

    Attributes:
        model: the model that θ are the weights of.
        weights: the global weights: θ, and those that a method adds.
        train: the client's train part, to adapt to.
        test: its test part, to evaluate on.
        seed: int32, shape (2,), for all random choices of the strategy.
        judge: evaluates weights: the summed loss and the right answers, as a `Curve` of scalars. For `adapted_weights`,
            returns the weights.
    """

    model: functional.SeededModel
    weights: global_weights.GlobalWeights
    train: local_training.Examples
    test: local_training.Examples
    seed: tf.Tensor
    judge: JudgeFn = _judge

    @property
    def theta(self) -> Weights:
        """The global model's weights."""
        return self.weights.model

    @functools.cached_property
    def judgement_of_theta(self) -> Any:
        """Loss (summed) and right answers of the global model on the test part, as a `Curve` of scalars."""
        return self.judge(self.model, self.theta, self.test)

    @functools.cached_property
    def on_features(self) -> tuple[functional.PlainClassifier, local_training.Examples, local_training.Examples]:
        """The model after the stem, and both parts with features under θ instead of images."""
        train, test = (local_training.features(self.model, self.theta, part) for part in (self.train, self.test))
        return self.model.after_stem, train, test


CurveFn = Callable[[Client, Tuning[Any]], Curve]


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A way to adapt a model to a client.

    Attributes:
        description: what it does, for tables and help.
        curve: adapts the model, and evaluates it after each epoch.
        settings: the settings that it reads, besides those of every strategy.
        needs: the name of what a method must add to the global weights, its `Method.provides`; "" for most.
        gives_weights: whether `adapted_weights` works: `curve` evaluates only by `client.judge`, and only weights of
            the client's model.
        one_label: whether it needs examples with one label each; a text has one at each place.
        lacks: what a network lacks for it, in words; "" if nothing.
        differs: how it differs from its source with default settings, for tables; "" if no difference is known.
    """

    description: str
    curve: CurveFn
    settings: type[Group] = FineTuning
    needs: str = ""
    gives_weights: bool = False
    one_label: bool = False
    lacks: Callable[[functional.SeededModel], str] = lambda model: ""
    differs: str = ""

    @property
    def tuned(self) -> bool:
        """Whether it trains with the personalization optimizer."""
        return issubclass(self.settings, FineTuning)


def by_epoch(
    state: Any,
    one_epoch: Callable[[tf.Tensor, Any], Any],
    judge: Callable[[Any], Any],
    before: Any,
    epochs: int,
) -> Any:
    """Evaluates the state before and after each of `epochs` epochs.

    Args:
        state: the state before the first epoch.
        one_epoch: maps an epoch's number, counted from 0, and the state before it to the state after it.
        judge: evaluates a state; returns a structure of tensors.
        before: the result for `state`, of the same structure.
        epochs: E.

    Returns:
        The structure with a tensor of shape (E + 1, …) for each of shape (…): before, and after each epoch.
    """
    size = epochs + 1
    rows = tf.nest.map_structure(lambda value: tf.TensorArray(value.dtype, size).write(0, value), before)

    def go_on(epoch: tf.Tensor, state: local_training.LocalState, rows: Any) -> tuple[tf.Tensor, Any, Any]:
        state = one_epoch(epoch, state)
        rows = tf.nest.map_structure(lambda row, value: row.write(epoch + 1, value), rows, judge(state))
        return epoch + 1, state, rows

    *_, rows = tf.while_loop(lambda epoch, *_: epoch < epochs, go_on, (0, state, rows), parallel_iterations=1)
    return tf.nest.map_structure(lambda row, value: tf.ensure_shape(row.stack(), [size, *value.shape]), rows, before)


def same_from_epoch_1(before: Any, after: Any, epochs: int) -> Any:
    """The curve of a strategy without epochs: `before` at epoch 0, and `after` at each of `epochs` epochs."""
    return tf.nest.map_structure(lambda first, then: tf.stack([first, *[then] * epochs]), before, after)


def curve_by_epoch(
    client: Client,
    tuning: Tuning[Any],
    training: local_training.LocalTraining,
    weights: Weights,
    judge: Callable[[Weights], Any],
    *,
    train: local_training.Examples | None = None,
    before: Any = None,
    adjust: local_training.AdjustFn | None = None,
) -> Any:
    """Trains for the epochs of `tuning`, and evaluates before and after each.

    Args:
        client: the client that trains.
        tuning: gives the number of epochs.
        training: the inner loop.
        weights: where training starts.
        judge: evaluates the trained weights.
        train: the examples to train on, if not the client's train part.
        before: the result of `weights`, if they are not those of the global model.
        adjust: as in `LocalTraining.steps`.
    """
    examples = client.train if train is None else train
    per_epoch = training.steps_per_epoch(examples)

    def one_epoch(epoch: tf.Tensor, state: local_training.LocalState) -> local_training.LocalState:
        return training.steps(state, examples, client.seed, epoch * per_epoch, (epoch + 1) * per_epoch, adjust)

    return by_epoch(
        training.initial_state(weights),
        one_epoch,
        lambda state: judge(state.weights),
        client.judgement_of_theta if before is None else before,
        tuning.epochs,
    )


def adapted_weights(
    strategy: Strategy,
    model: functional.SeededModel,
    weights: global_weights.GlobalWeights,
    train: local_training.Examples,
    seed: tf.Tensor,
    tuning: Tuning[Any],
) -> Weights:
    """The weights that a strategy makes for a client: those after the last epoch.

    Args:
        strategy: a strategy that gives weights.
        model: the model.
        weights: the global weights.
        train: the client's train part.
        seed: int32, shape (2,), for all random choices of the strategy.
        tuning: the strategy's tuning.
    """
    assert strategy.gives_weights
    nothing = local_training.Examples(train.x[:0], train.y[:0])
    client = Client(model, weights, train, nothing, seed, _weights_of_model)
    return tuple(rows[-1] for rows in strategy.curve(client, tuning))


def _weights_of_model(model: functional.Classifier, weights: Weights, test: local_training.Examples) -> Weights:
    del test
    return model.weights_of(weights) if isinstance(model, Reparameterized) else weights


@dataclasses.dataclass(frozen=True)
class Reparameterized:
    """A classifier whose weights are a function of other weights, which are trained.

    Attributes:
        model: the classifier.
        weights_of: maps the trained weights to the model's weights.
    """

    model: functional.SeededModel
    weights_of: Callable[[Weights], Weights]

    def logits(self, weights: Weights, x: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        """The model's logits; see `functional.SeededModel.logits`."""
        return self.model.logits(self.weights_of(weights), x, dropout_seed)

    @property
    def scoring(self) -> functional.Scoring:
        """The model's."""
        return self.model.scoring
