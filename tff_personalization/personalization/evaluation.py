"""Personalization evaluation as a TFF computation: clients evaluate the global model before and after adapting it.

    θ: global model
    broadcast θ
    for each client i, for each strategy:
        φ_0 ← the strategy's start (θ, unless it says otherwise)
        record loss and accuracy of φ_0 on client i's test part
        for e = 1 … E:
            φ_e ← one epoch of the personalization optimizer on client i's train part, starting at φ_{e−1}
            record loss and accuracy of φ_e on client i's test part

The result is released in one of two forms. `records` gives each client's measurements with its index. It is for
simulation, where every number may be traced to its client. `aggregates` gives only sums over clients: counts, moments
and a histogram of accuracy. The distribution is computed from these, and no per-client value leaves a client.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors, global_weights, local_training, metrics
from tff_personalization.algorithms import client_work, stateful_clients
from tff_personalization.models import functional
from tff_personalization.personalization import adaptation
from tff_personalization.personalization import strategies as strategies_lib
from tff_personalization.settings import Group

HISTOGRAM_BINS = 100
RELEASES = ("records", "aggregates")
KEPT = "kept"
"""What the model that a participant keeps is called beside the strategies."""


def evaluation_data_type(model: functional.SeededModel, client_state: Any = None) -> tff.Type:
    """The type of one client's data: `<index=int32, seed=int32[2], test=<x, y>, train=<x, y>>`.

    With `client_state`, a client's state before its first round, it also has `kept`, of that state's type.
    """
    examples = tff.types.tensorflow_to_type(model.input_spec)
    fields: dict[str, Any] = {
        "index": tff.TensorType(tf.int32.as_numpy_dtype),
        "seed": tff.TensorType(tf.int32.as_numpy_dtype, [2]),
        "test": examples,
        "train": examples,
    }
    if client_state is not None:
        fields["kept"] = stateful_clients.type_of(client_state)
    return tff.to_type(collections.OrderedDict(fields))


def check_network(model: functional.SeededModel, strategies: Sequence[str]) -> None:
    """Raises UserError if the network lacks what one of the strategies needs."""
    for name in strategies:
        if lacks := strategies_lib.STRATEGIES[name].lacks(model):
            raise errors.UserError(f"--strategies: {name} needs a network with {lacks}: leave it out.")


def build_personalization_evaluation(
    model: functional.SeededModel,
    optimizer: tff.learning.optimizers.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    strategies: Sequence[str],
    release: str,
    own_settings: Callable[[type[Group]], Group] = lambda settings: settings(),
    initial_weights: global_weights.GlobalWeights | None = None,
    personal: stateful_clients.PersonalFn | None = None,
    client_state: Any = None,
) -> tff.Computation:
    """Builds the evaluation, of type `(<θ@SERVER, {<index, seed, test, train>}@CLIENTS> -> …)`.

    Below, S is the number of strategies and a row of E + 1 numbers belongs to the epochs 0 (before) to E.

    Args:
        model: the model that θ are the weights of.
        optimizer: the personalization optimizer; its state is fresh for each client and strategy.
        epochs: E, the epochs of fine-tuning.
        batch_size: examples a step.
        strategies: names in `strategies.STRATEGIES`, all evaluated in one pass.
        release: "records" returns one structure a client, `<index=int32, train_examples=int32, test_examples=int32,
            test_predictions=int32, correct=int32[S,E+1], loss_sum=float32[S,E+1]>@CLIENTS`: how many predictions on the
            test examples there are, how many are right, and their losses (nats), summed. `correct` is float32 with a
            metric that is no share of right predictions. "aggregates" returns the sums of `client_sums` at the server.
        own_settings: returns a strategy's own settings, of its `Strategy.settings`; by default their defaults.
        initial_weights: global weights with the final names and shapes, if a method adds to the model's.
        personal: makes a participant's own model from what it keeps, if the method's clients keep one. It is evaluated
            as one more strategy, the last: epoch 0 is the global model, later epochs are the kept model.
        client_state: a client's state before its first round, with `personal`; the clients' data has their states as
            `kept`.

    Raises:
        ValueError: if `release` is neither.
        UserError: the network lacks what a strategy needs.
    """
    if release not in RELEASES:
        raise ValueError(f"release: one of {RELEASES} expected, got {release!r}")
    check_network(model, strategies)
    named = initial_weights or global_weights.GlobalWeights.initial(model)
    weights_type = client_work.weights_type(named)
    data_type = evaluation_data_type(model, client_state)

    @tff.tensorflow.computation(weights_type, data_type)
    @tf.function(autograph=False)
    def evaluate_client(weights: tff.learning.models.ModelWeights, data: Mapping[str, Any]) -> Mapping[str, tf.Tensor]:
        train, test = (local_training.Examples(*data[part]) for part in ("train", "test"))
        client = adaptation.Client(model, named.like(weights.trainable), train, test, data["seed"])
        chosen = [strategies_lib.STRATEGIES[name] for name in strategies]
        tunings = [adaptation.Tuning(optimizer, epochs, batch_size, own_settings(one.settings)) for one in chosen]
        curves = [strategy.curve(client, tuning) for strategy, tuning in zip(chosen, tunings, strict=True)]
        for name, curve in zip(strategies, curves, strict=True):
            _check(name, curve, epochs, model.scoring.score_dtype)
        if personal is not None:
            kept = client.judge(*personal(tuple(weights.trainable), data["kept"]), test)
            curves.append(adaptation.same_from_epoch_1(client.judgement_of_theta, kept, epochs))
        loss_sum, correct = (tf.stack(rows) for rows in zip(*curves, strict=True))
        return collections.OrderedDict(
            index=data["index"],
            train_examples=tf.shape(train.y)[0],
            test_examples=tf.shape(test.y)[0],
            test_predictions=model.scoring.count_predictions(test.y),
            correct=correct,
            loss_sum=loss_sum,
        )

    @tff.tensorflow.computation(evaluate_client.type_signature.result)
    @tf.function(autograph=False)
    def sums(record: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        return client_sums(record["correct"], record["loss_sum"], record["test_predictions"], model.scoring.metric)

    @tff.federated_computation(tff.FederatedType(weights_type, tff.SERVER), tff.FederatedType(data_type, tff.CLIENTS))
    def evaluate(weights: tff.Value, data: tff.Value) -> tff.Value:
        records = tff.federated_map(evaluate_client, (tff.federated_broadcast(weights), data))
        if release == "records":
            return records
        return tff.federated_sum(tff.federated_map(sums, records))

    return evaluate


def _check(name: str, curve: Any, epochs: int, score_dtype: tf.DType) -> None:
    """Raises UserError if a strategy does not return a curve."""
    values = tuple(curve) if isinstance(curve, tuple) else ()
    if len(values) != len(adaptation.Curve._fields):
        raise errors.UserError(
            f"--strategies: {name} gives {errors.described(curve)}; an adaptation.Curve is expected."
        )
    for field, value, dtype in zip(adaptation.Curve._fields, values, (tf.float32, score_dtype), strict=True):
        value = tf.convert_to_tensor(value)
        if value.dtype != dtype or not value.shape.is_compatible_with([epochs + 1]):
            raise errors.UserError(
                f"--strategies: {name} gives {field} as {value.dtype.name} of shape {tuple(value.shape)}; {dtype.name} "
                f"of shape ({epochs + 1},) is expected: a number before, and one after each of {epochs} epochs."
            )


def client_sums(
    correct: tf.Tensor, loss_sum: tf.Tensor, test_predictions: tf.Tensor, metric: metrics.Metric = metrics.ACCURACY
) -> collections.OrderedDict[str, tf.Tensor]:
    """What one client adds to the aggregates. If it has nothing to predict, only its count is not zero.

    Args:
        correct: shape (S, E + 1), right answers, or else the metric's scores, summed, by strategy and epoch; epoch 0 is
            before personalization.
        loss_sum: float32, same shape, losses in nats summed over the predictions.
        test_predictions: int32, the predictions on the client's test examples.
        metric: what is called accuracy below.

    Returns:
        `clients`, `clients_without_test_examples`, `test_predictions`: int32. By strategy and epoch: `correct`,
        `loss` (the client's mean loss), `accuracy`, `accuracy_squared`, `gain`, `gain_squared` (float32), `gaining`,
        `hurt` (int32: whether the gain is above, below 0) and `histogram` (int32, with a further axis of
        `HISTOGRAM_BINS` bins of equal width from 0 to the metric's largest value, which the last holds too).
    """
    has_test = tf.cast(test_predictions > 0, tf.int32)
    divisor = tf.maximum(test_predictions, 1)
    present = tf.cast(has_test, tf.float32)
    accuracy = tf.cast(correct, tf.float32) / tf.cast(divisor, tf.float32)
    gain, more_right = (metric.gain(values[:, :1], values) for values in (accuracy, correct))
    if metric.is_share:
        # Integer arithmetic, so that an accuracy of exactly k / bins always falls into bin k.
        bins = tf.cast(tf.cast(correct, tf.int64) * HISTOGRAM_BINS // tf.cast(divisor, tf.int64), tf.int32)
    else:
        bins = tf.cast(accuracy / metric.upper * HISTOGRAM_BINS, tf.int32)
    bins = tf.minimum(bins, HISTOGRAM_BINS - 1)
    return collections.OrderedDict(
        clients=has_test,
        clients_without_test_examples=1 - has_test,
        test_predictions=test_predictions,
        correct=correct,
        loss=present * loss_sum / tf.cast(divisor, tf.float32),
        accuracy=accuracy,
        accuracy_squared=accuracy**2,
        gain=gain,
        gain_squared=gain**2,
        gaining=tf.cast(more_right > 0, tf.int32),
        hurt=tf.cast(more_right < 0, tf.int32),
        histogram=has_test * tf.one_hot(bins, HISTOGRAM_BINS, dtype=tf.int32),
    )
