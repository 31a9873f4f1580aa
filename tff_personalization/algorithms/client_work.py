"""What a client does in a round: from the global model and its own data to the model delta that it sends back.

A method says what its clients do with an `UpdateFn`; the rest of a round is the same for all.
"""

import collections
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training
from tff_personalization.models import functional

WEIGHTINGS = ("examples", "uniform")
Weights = tuple[tf.Tensor, ...]
StepsFn = Callable[[local_training.LocalTraining, local_training.Examples], tf.Tensor]


class ClientUpdate(NamedTuple):
    """What a client found in a round.

    Attributes:
        model_delta: what the server optimizer is to take for a gradient, in the structure of the global weights.
        loss_sum: float32, the loss of each visited example, summed.
        correct: int32, how many visited examples were classified rightly.
        examples: int32, visited examples.
        state: what the client's state of the next round is.
        weighed: int32, how many examples count in its weight; None for all that the client has.
    """

    model_delta: Weights
    loss_sum: tf.Tensor
    correct: tf.Tensor
    examples: tf.Tensor
    state: Any = ()
    weighed: tf.Tensor | None = None


# (global weights, the client's examples, int32[2] seed, state) -> ClientUpdate
UpdateFn = Callable[[Weights, local_training.Examples, tf.Tensor, Any], ClientUpdate]


def client_data_type(model: functional.SeededModel) -> tff.Type:
    """The type of one client's data in a round: `<x=…, y=int32[?], seed=int32[2]>*`, a sequence of one element.

    The element holds all of the client's examples, and the seed of its shuffling and dropout in this round. TFF wants
    client data to be a sequence; one of a single element is read without the cost of a `tf.data` pipeline, which is
    more than that of a training step.
    """
    x, y = model.input_spec
    element = collections.OrderedDict(x=x, y=y, seed=tf.TensorSpec([2], tf.int32))
    return tff.SequenceType(tff.types.tensorflow_to_type(element))


def weights_type(initial_weights: tuple[np.ndarray, ...]) -> tff.Type:
    """The `tff.learning.models.ModelWeights` type of global weights."""
    specs = tuple(tf.TensorSpec(w.shape, w.dtype) for w in initial_weights)
    return tff.types.tensorflow_to_type(tff.learning.models.ModelWeights(specs, ()))


def local_steps(training: local_training.LocalTraining, num_steps: StepsFn) -> UpdateFn:
    """The update of FedAvg, Reptile and FedSGD: `num_steps` local steps from θ, then the delta θ − θ_i.

    Args:
        training: the inner loop.
        num_steps: how many steps a client takes, as a function of the inner loop and the client's examples.
    """

    def update(theta, examples, seed, state):
        del state
        end = training.steps(training.initial_state(theta), examples, seed, 0, num_steps(training, examples))
        return update_from(theta, end)

    return update


def update_from(theta: Weights, end: local_training.LocalState, state: Any = ()) -> ClientUpdate:
    """The update of a client whose local training from θ ended with `end`."""
    model_delta = tuple(before - after for before, after in zip(theta, end.weights, strict=True))
    return ClientUpdate(model_delta, end.loss_sum, end.correct, end.examples, state)


def build_client_work(
    model: functional.SeededModel,
    update: UpdateFn,
    weighting: str,
    *,
    initial_weights: tuple[np.ndarray, ...] | None = None,
    initial_state: Callable[[], Any] = tuple,
) -> tff.learning.templates.ClientWorkProcess:
    """Builds the client work in which each client of the cohort does `update`.

    A client whose delta is not finite, or that has no examples, gets weight 0 and a zero delta; the former
    are counted. The type of `next` is

        (<S@SERVER, θ@CLIENTS, {<x, y, seed>*}@CLIENTS>
          -> <state=S@SERVER, result=<update=Δ, update_weight=float32>@CLIENTS, measurements=…@SERVER>)

    with measurements `clients` and `non_finite_clients` (how many trained and how many were left out), `examples`
    (visits of examples), `train_loss` (nats) and `train_accuracy` (over those visits, each before its own step).

    Args:
        model: the model to train.
        update: what a client does.
        weighting: "examples" weights a client's delta by its number of examples, "uniform" by 1.
        initial_weights: the global weights, where they are more than the model's own.
        initial_state: the state that the server keeps for the client from round to round; by default there is none. It
            means something only when every cohort is one client, as in pooled training.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting: one of {WEIGHTINGS} expected, got {weighting!r}")
    global_type = weights_type(model.initial_weights[0] if initial_weights is None else initial_weights)
    data_type = client_data_type(model)
    state_at_start = tff.tensorflow.computation(lambda: initial_state())
    state_type = state_at_start.type_signature.result
    has_state = len(state_type) > 0

    @tff.tensorflow.computation(state_type, global_type, data_type)
    @tf.function(autograph=False)
    def train_client(state, weights, data):
        element = data.get_single_element()
        examples = local_training.Examples(element["x"], element["y"])
        found = update(tuple(weights.trainable), examples, element["seed"], state)

        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(part)) for part in found.model_delta])
        zeros = lambda: tuple(tf.zeros_like(part) for part in found.model_delta)  # noqa: E731
        model_delta = tf.cond(finite, lambda: found.model_delta, zeros)
        size = tf.cast(tf.shape(examples.y)[0] if found.weighed is None else found.weighed, tf.float32)
        weight = size if weighting == "examples" else tf.minimum(size, 1.0)
        measured = collections.OrderedDict(
            clients=tf.cast(tf.logical_and(finite, found.examples > 0), tf.int32),
            non_finite_clients=tf.cast(tf.logical_not(finite), tf.int32),
            examples=tf.where(finite, found.examples, 0),
            loss_sum=tf.where(finite, found.loss_sum, 0.0),
            correct=tf.where(finite, found.correct, 0),
        )
        result = tff.learning.templates.ClientResult(model_delta, tf.where(finite, weight, 0.0))
        return result, measured, found.state

    @tff.tensorflow.computation(train_client.type_signature.result[1])
    def finalize(total):
        examples = tf.cast(total["examples"], tf.float32)
        return collections.OrderedDict(
            clients=total["clients"],
            non_finite_clients=total["non_finite_clients"],
            examples=total["examples"],
            train_loss=tf.math.divide_no_nan(total["loss_sum"], examples),
            train_accuracy=tf.math.divide_no_nan(tf.cast(total["correct"], tf.float32), examples),
        )

    @tff.federated_computation
    def initialize():
        return tff.federated_eval(state_at_start, tff.SERVER)

    @tff.federated_computation(
        tff.FederatedType(state_type, tff.SERVER),
        tff.FederatedType(global_type, tff.CLIENTS),
        tff.FederatedType(data_type, tff.CLIENTS),
    )
    def next_fn(state, weights, data):
        result, measured, client_state = tff.federated_map(
            train_client, (tff.federated_broadcast(state), weights, data)
        )
        new_state = tff.federated_sum(client_state) if has_state else state
        measurements = tff.federated_map(finalize, tff.federated_sum(measured))
        return tff.templates.MeasuredProcessOutput(new_state, result, measurements)

    return tff.learning.templates.ClientWorkProcess(initialize, next_fn)


def compose(
    model: functional.SeededModel,
    client_work: tff.learning.templates.ClientWorkProcess,
    server_optimizer: tff.learning.optimizers.Optimizer,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
    *,
    initial_weights: tuple[np.ndarray, ...] | None = None,
) -> tff.learning.templates.LearningProcess:
    """One round of Algorithm 1's outer loop: broadcast θ, client work, (weighted) mean of the deltas, server step.

    If no client of a round has a finite delta, the mean is undefined and the finalizer keeps θ and its state.

    Args:
        model: the model to train.
        client_work: what clients do; see `build_client_work`.
        server_optimizer: takes a step with the aggregate as its gradient.
        aggregator: makes one delta of the clients' deltas; by default their weighted mean.
        initial_weights: the global weights, where they are more than the model's own.
    """
    start = model.initial_weights[0] if initial_weights is None else initial_weights

    @tff.tensorflow.computation
    def initial_model_weights():
        return tff.learning.models.ModelWeights(tuple(tf.constant(w) for w in start), ())

    global_type = initial_model_weights.type_signature.result
    result_type = client_work.next.type_signature.result.result.member
    return tff.learning.templates.compose_learning_process(
        initial_model_weights,
        tff.learning.templates.build_broadcast_process(global_type),
        client_work,
        (aggregator or tff.aggregators.MeanFactory()).create(result_type.update, result_type.update_weight),
        tff.learning.templates.build_apply_optimizer_finalizer(server_optimizer, global_type),
    )
