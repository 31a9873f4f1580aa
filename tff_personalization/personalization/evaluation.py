"""Personalization evaluation as a TFF computation: each client judges the global model before and after adapting it.

    θ: global model
    broadcast θ
    for each client i, for each strategy:
        φ_0 ← the strategy's start (θ, unless it says otherwise)
        record loss and accuracy of φ_0 on client i's test part
        for e = 1 … E:
            φ_e ← one epoch of the personalization optimizer on client i's train part, starting at φ_{e−1}
            record loss and accuracy of φ_e on client i's test part

The same work is released in one of two forms. `records` gives what each client measured, with the client's index: for
simulation, where every number may be traced to its client. `aggregates` gives sums over clients alone: counts, moments
and a histogram of accuracy, from which the distribution is read; no per-client value leaves a client.
"""

import collections
import functools
from collections.abc import Sequence

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training
from tff_personalization.algorithms import client_work
from tff_personalization.models import functional
from tff_personalization.personalization import strategies as strategies_lib

HISTOGRAM_BINS = 100
RELEASES = ("records", "aggregates")


def evaluation_data_type(model: functional.SeededModel) -> tff.Type:
    """The type of one client's data: `<index=int32, seed=int32[2], test=<x, y>, train=<x, y>>`."""
    examples = tff.types.tensorflow_to_type(model.input_spec)
    return tff.to_type(
        collections.OrderedDict(
            index=tff.TensorType(tf.int32.as_numpy_dtype),
            seed=tff.TensorType(tf.int32.as_numpy_dtype, [2]),
            test=examples,
            train=examples,
        )
    )


def build_personalization_evaluation(
    model: functional.SeededModel,
    optimizer: tff.learning.optimizers.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    strategies: Sequence[str],
    release: str,
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
            test examples there are, how many are right, and their losses (nats), summed. "aggregates" returns the
            sums of `client_sums` at the server.

    Raises:
        ValueError: if `release` is neither.
    """
    if release not in RELEASES:
        raise ValueError(f"release: one of {RELEASES} expected, got {release!r}")
    weights_type = client_work.model_weights_type(model)
    data_type = evaluation_data_type(model)

    @tff.tensorflow.computation(weights_type, data_type)
    @tf.function
    def evaluate_client(weights, data):
        theta = tuple(weights.trainable)
        train, test = (local_training.Examples(*data[part]) for part in ("train", "test"))
        chosen = [strategies_lib.STRATEGIES[name] for name in strategies]
        judge = functools.partial(local_training.evaluate, batch_size=model.evaluation_batch_size)
        # What strategies share is computed once: features, where the stem stays as it is, and the judgement of θ.
        on_images: tuple[functional.Classifier, local_training.Examples, local_training.Examples] = model, train, test
        on_features = on_images
        if any(strategies_lib.keeps_stem(strategy, model) for strategy in chosen):
            train_features, test_features = (local_training.features(model, theta, part) for part in (train, test))
            on_features = model.after_stem, train_features, test_features
        judgement_of_theta = None
        if any(strategy.start is None for strategy in chosen):
            judgement_of_theta = judge(model, theta, test)
        curves = []
        for strategy in chosen:
            classifier, of_train, of_test = on_features if strategies_lib.keeps_stem(strategy, model) else on_images
            training = local_training.LocalTraining(classifier, optimizer, batch_size, trained=strategy.trained(model))
            start = theta if strategy.start is None else strategy.start(model)
            before = judgement_of_theta if strategy.start is None else judge(model, start, test)
            judge_on_test = functools.partial(judge, classifier, examples=of_test)
            curves.append(_accuracy_by_epoch(judge_on_test, training, start, before, of_train, data["seed"], epochs))
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
    @tf.function
    def sums(record):
        return client_sums(record["correct"], record["loss_sum"], record["test_predictions"])

    @tff.federated_computation(tff.FederatedType(weights_type, tff.SERVER), tff.FederatedType(data_type, tff.CLIENTS))
    def evaluate(weights, data):
        records = tff.federated_map(evaluate_client, (tff.federated_broadcast(weights), data))
        if release == "records":
            return records
        return tff.federated_sum(tff.federated_map(sums, records))

    return evaluate


def _accuracy_by_epoch(judge, training, weights, before, train, seed, epochs):
    """Losses (summed) and right answers by `judge`, before and after each epoch: float32 and int32, shape (E + 1,)."""
    per_epoch = training.steps_per_epoch(train)

    def one_epoch(epoch, state, loss_sums, corrects):
        state = training.steps(state, train, seed, epoch * per_epoch, (epoch + 1) * per_epoch)
        loss_sum, correct = judge(weights=state.weights)
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
    return tf.ensure_shape(loss_sums.stack(), shape), tf.ensure_shape(corrects.stack(), shape)


def client_sums(
    correct: tf.Tensor, loss_sum: tf.Tensor, test_predictions: tf.Tensor
) -> collections.OrderedDict[str, tf.Tensor]:
    """What one client adds to the aggregates: all zero, but for the count, if it has nothing to predict.

    Args:
        correct: int32, shape (S, E + 1), right answers by strategy and epoch; epoch 0 is before personalization.
        loss_sum: float32, same shape, losses in nats summed over the predictions.
        test_predictions: int32, the predictions on the client's test examples.

    Returns:
        `clients`, `clients_without_test_examples`, `test_predictions`: int32. By strategy and epoch: `correct` (int32),
        `loss` (the client's mean loss), `accuracy`, `accuracy_squared`, `gain`, `gain_squared` (float32), `gaining`,
        `hurt` (int32: whether accuracy is above, below that of epoch 0) and `histogram` (int32, with a further axis of
        `HISTOGRAM_BINS` bins of equal width over [0, 1]; the last holds 1 too).
    """
    has_test = tf.cast(test_predictions > 0, tf.int32)
    divisor = tf.maximum(test_predictions, 1)
    present = tf.cast(has_test, tf.float32)
    accuracy = tf.cast(correct, tf.float32) / tf.cast(divisor, tf.float32)
    before = correct[:, :1]
    gain = accuracy - accuracy[:, :1]
    # Integer arithmetic: an accuracy of exactly k / bins falls into bin k whatever the rounding.
    bins = tf.minimum(correct * HISTOGRAM_BINS // divisor, HISTOGRAM_BINS - 1)
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
        gaining=tf.cast(correct > before, tf.int32),
        hurt=tf.cast(correct < before, tf.int32),
        histogram=has_test * tf.one_hot(bins, HISTOGRAM_BINS, dtype=tf.int32),
    )
