"""Strategies: how a global model is adapted to a client, and how good it is on the way.

A strategy is a function from a client and the settings to a `Curve`; `fine_tuning` makes those that are local training
from some weights. Adding one is one line in `STRATEGIES`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training
from tff_personalization.algorithms import ifca
from tff_personalization.models import functional

Weights = tuple[tf.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What strategies are tuned by.

    Attributes:
        optimizer: the personalization optimizer.
        epochs: E, the epochs of local training.
        batch_size: examples a step.
        values: the values of the flags, by name.
    """

    optimizer: tff.learning.optimizers.Optimizer
    epochs: int
    batch_size: int
    values: Mapping[str, Any]


class Curve(NamedTuple):
    """How the adapted model does on a client's test part, before (epoch 0) and after each epoch of adapting it.

    Attributes:
        loss_sum: float32, shape (E + 1,), the losses of the test examples (nats), summed.
        correct: int32, shape (E + 1,), how many of them are classified rightly.
    """

    loss_sum: tf.Tensor
    correct: tf.Tensor


class Client:
    """A client under evaluation, inside the computation. What strategies share is computed once, when first needed.

    Attributes:
        model: the model that θ are the weights of.
        theta: the global model's weights.
        extra: the global weights that a method has besides θ; an empty tuple for most.
        train: the client's train part, to adapt to.
        test: its test part, to judge on.
        seed: int32, shape (2,), for all that the strategy draws.
    """

    def __init__(
        self,
        model: functional.SeededModel,
        weights: Weights,
        train: local_training.Examples,
        test: local_training.Examples,
        seed: tf.Tensor,
    ):
        """Takes the global weights, the model's own first."""
        size = len(model.initial_weights[0])
        self.model = model
        self.theta, self.extra = weights[:size], weights[size:]
        self.train = train
        self.test = test
        self.seed = seed

    @functools.cached_property
    def judgement_of_theta(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Loss (summed) and right answers of the global model on the test part."""
        return local_training.evaluate(self.model, self.theta, self.test)

    @functools.cached_property
    def on_features(self) -> tuple[functional.AfterStem, local_training.Examples, local_training.Examples]:
        """What follows the stem, and both parts with features under θ in place of images."""
        train, test = (local_training.features(self.model, self.theta, part) for part in (self.train, self.test))
        return self.model.after_stem, train, test


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A way to adapt a model to a client.

    Attributes:
        description: what it does, for tables and help.
        curve: does it, and judges on the way.
        reads: the flags that it reads, besides those that every strategy reads.
        needs: what a method must provide in `client.extra`, as its `Method.provides` says; "" for most.
    """

    description: str
    curve: Callable[[Client, Settings], Curve]
    reads: tuple[str, ...] = ()
    needs: str = ""


def fine_tuning(
    trained: Callable[[functional.SeededModel], slice] = lambda model: slice(None),
    start: Callable[[Client], Weights] | None = None,
) -> Callable[[Client, Settings], Curve]:
    """The curve of local training on the client's train part.

    Args:
        trained: which of the model's weights are trained.
        start: where training starts; None for the global model θ.
    """

    def curve(client: Client, settings: Settings) -> Curve:
        model: functional.Classifier = client.model
        train, test = client.train, client.test
        which = trained(client.model)
        # Features are the same in all epochs where the stem of the global model stays as it is.
        if start is None and min(range(len(client.theta))[which]) >= client.model.stem_size:
            model, train, test = client.on_features
        training = local_training.LocalTraining(model, settings.optimizer, settings.batch_size, trained=which)
        weights = client.theta if start is None else start(client)
        before = client.judgement_of_theta if start is None else local_training.evaluate(model, weights, test)
        return curve_by_epoch(model, training, weights, before, train, test, client.seed, settings.epochs)

    return curve


def curve_by_epoch(
    model: functional.Classifier,
    training: local_training.LocalTraining,
    weights: Weights,
    before: tuple[tf.Tensor, tf.Tensor],
    train: local_training.Examples,
    test: local_training.Examples,
    seed: tf.Tensor,
    epochs: int,
    adjust: local_training.AdjustFn | None = None,
) -> Curve:
    """Trains for `epochs` epochs on `train`, judged on `test` after each; `before` is the judgement of `weights`."""
    per_epoch = training.steps_per_epoch(train)

    def one_epoch(epoch, state, loss_sums, corrects):
        state = training.steps(state, train, seed, epoch * per_epoch, (epoch + 1) * per_epoch, adjust)
        loss_sum, correct = local_training.evaluate(model, state.weights, test)
        return epoch + 1, state, loss_sums.write(epoch + 1, loss_sum), corrects.write(epoch + 1, correct)

    loss_sum, correct = before
    loss_sums = tf.TensorArray(tf.float32, epochs + 1).write(0, loss_sum)
    corrects = tf.TensorArray(tf.int32, epochs + 1).write(0, correct)
    _, _, loss_sums, corrects = tf.while_loop(
        lambda epoch, *_: epoch < epochs,
        one_epoch,
        (0, training.initial_state(weights), loss_sums, corrects),
        parallel_iterations=1,
    )
    shape = [epochs + 1]
    return Curve(tf.ensure_shape(loss_sums.stack(), shape), tf.ensure_shape(corrects.stack(), shape))


def _untrained_model(client: Client) -> Weights:
    return tuple(tf.constant(w) for w in client.model.initial_weights[0])


def _best_cluster(client: Client) -> Weights:
    weights = (*client.theta, *client.extra)
    models = ifca.split(weights, len(weights) // len(client.theta))
    return ifca.take(models, ifca.choose(client.model, models, client.train))


STRATEGIES = {
    "fine_tune": Strategy("fine-tune all layers", fine_tuning()),
    "fine_tune_head": Strategy(
        "fine-tune the last layer", fine_tuning(trained=lambda model: slice(-model.head_size, None))
    ),
    "local_only": Strategy("train an untrained model", fine_tuning(start=_untrained_model)),
    "best_cluster": Strategy(
        "choose the model with the lowest loss on the train part, then fine-tune all its layers",
        fine_tuning(start=_best_cluster),
        needs=ifca.SEVERAL_MODELS,
    ),
}
