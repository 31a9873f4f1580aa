"""What a client does in a round: train the global model on its own data and send back the model delta."""

import collections
from collections.abc import Callable

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training
from tff_personalization.models import functional

WEIGHTINGS = ("examples", "uniform")
StepsFn = Callable[[local_training.LocalTraining, local_training.Examples], tf.Tensor]


def client_data_type(model: functional.SeededModel) -> tff.Type:
    """The type of one client's data in a round: `<x=…, y=int32[?], seed=int32[2]>*`, a sequence of one element.

    The element holds all of the client's examples, and the seed of its shuffling and dropout in this round. TFF wants
    client data to be a sequence; one of a single element is read without the cost of a `tf.data` pipeline, which is
    more than that of a training step.
    """
    x, y = model.input_spec
    element = collections.OrderedDict(x=x, y=y, seed=tf.TensorSpec([2], tf.int32))
    return tff.SequenceType(tff.types.tensorflow_to_type(element))


def model_weights_type(model: functional.SeededModel) -> tff.Type:
    """The `tff.learning.models.ModelWeights` type of `model`."""
    specs = tuple(tf.TensorSpec(w.shape, w.dtype) for w in model.initial_weights[0])
    return tff.types.tensorflow_to_type(tff.learning.models.ModelWeights(specs, ()))


def build_client_work(
    model: functional.SeededModel,
    training: local_training.LocalTraining,
    num_steps: StepsFn,
    weighting: str,
    keep_optimizer_state: bool = False,
) -> tff.learning.templates.ClientWorkProcess:
    """Builds the client work of FedAvg, Reptile and FedSGD: `num_steps` local steps, then the delta θ − θ_i.

    A client whose delta is not finite, or that has no examples, gets weight 0 and a zero delta; the former
    are counted. The type of `next` is

        (<S@SERVER, θ@CLIENTS, {<x, y, seed>*}@CLIENTS>
          -> <state=S@SERVER, result=<update=Δ, update_weight=float32>@CLIENTS, measurements=…@SERVER>)

    with measurements `clients` and `non_finite_clients` (how many trained and how many were left out), `examples`
    (visits of examples), `train_loss` (nats) and `train_accuracy` (over the predictions on those visits, each before
    its own step).

    Args:
        model: the model to train.
        training: the inner loop.
        num_steps: how many steps a client takes, as a function of the inner loop and the client's examples.
        weighting: "examples" weights a client's delta by its number of examples, "uniform" by 1.
        keep_optimizer_state: whether the client optimizer's state is kept on the server from round to round. It
            means something only when every cohort is one client, as in pooled training.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting: one of {WEIGHTINGS} expected, got {weighting!r}")
    weights_type = model_weights_type(model)
    data_type = client_data_type(model)

    @tff.tensorflow.computation
    def initial_state():
        return training.initial_optimizer_state(model.initial_weights[0]) if keep_optimizer_state else ()

    state_type = initial_state.type_signature.result

    @tff.tensorflow.computation(state_type, weights_type, data_type)
    @tf.function
    def train_client(optimizer_state, weights, data):
        theta = tuple(weights.trainable)
        element = data.get_single_element()
        examples, seed = local_training.Examples(element["x"], element["y"]), element["seed"]
        start = training.initial_state(theta, optimizer_state if keep_optimizer_state else None)
        end = training.steps(start, examples, seed, 0, num_steps(training, examples))

        model_delta = tuple(before - after for before, after in zip(theta, end.weights, strict=True))
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(part)) for part in model_delta])
        model_delta = tf.cond(finite, lambda: model_delta, lambda: tuple(tf.zeros_like(part) for part in model_delta))
        size = tf.cast(tf.shape(examples.y)[0], tf.float32)
        weight = size if weighting == "examples" else tf.minimum(size, 1.0)
        took_part = tf.logical_and(finite, end.examples > 0)
        measured = collections.OrderedDict(
            clients=tf.cast(took_part, tf.int32),
            non_finite_clients=tf.cast(tf.logical_not(finite), tf.int32),
            examples=tf.where(finite, end.examples, 0),
            loss_sum=tf.where(finite, end.loss_sum, 0.0),
            correct=tf.where(finite, end.correct, 0),
            predictions=tf.where(finite, end.predictions, 0),
        )
        result = tff.learning.templates.ClientResult(model_delta, tf.where(finite, weight, 0.0))
        return result, measured, end.optimizer_state if keep_optimizer_state else ()

    @tff.tensorflow.computation(train_client.type_signature.result[1])
    def finalize(total):
        predictions = tf.cast(total["predictions"], tf.float32)
        return collections.OrderedDict(
            clients=total["clients"],
            non_finite_clients=total["non_finite_clients"],
            examples=total["examples"],
            train_loss=tf.math.divide_no_nan(total["loss_sum"], predictions),
            train_accuracy=tf.math.divide_no_nan(tf.cast(total["correct"], tf.float32), predictions),
        )

    @tff.federated_computation
    def initialize():
        return tff.federated_eval(initial_state, tff.SERVER)

    @tff.federated_computation(
        tff.FederatedType(state_type, tff.SERVER),
        tff.FederatedType(weights_type, tff.CLIENTS),
        tff.FederatedType(data_type, tff.CLIENTS),
    )
    def next_fn(state, weights, data):
        result, measured, optimizer_state = tff.federated_map(
            train_client, (tff.federated_broadcast(state), weights, data)
        )
        new_state = tff.federated_sum(optimizer_state) if keep_optimizer_state else state
        measurements = tff.federated_map(finalize, tff.federated_sum(measured))
        return tff.templates.MeasuredProcessOutput(new_state, result, measurements)

    return tff.learning.templates.ClientWorkProcess(initialize, next_fn)


def compose(
    model: functional.SeededModel,
    client_work: tff.learning.templates.ClientWorkProcess,
    server_optimizer: tff.learning.optimizers.Optimizer,
) -> tff.learning.templates.LearningProcess:
    """One round of Algorithm 1's outer loop: broadcast θ, client work, (weighted) mean of the deltas, server step.

    If no client of a round has a finite delta, the mean is undefined and the finalizer keeps θ and its state.
    """

    @tff.tensorflow.computation
    def initial_model_weights():
        return tff.learning.models.ModelWeights(tuple(tf.constant(w) for w in model.initial_weights[0]), ())

    result_type = client_work.next.type_signature.result.result.member
    return tff.learning.templates.compose_learning_process(
        initial_model_weights,
        tff.learning.templates.build_broadcast_process(initial_model_weights.type_signature.result),
        client_work,
        tff.aggregators.MeanFactory().create(result_type.update, result_type.update_weight),
        tff.learning.templates.build_apply_optimizer_finalizer(
            server_optimizer, initial_model_weights.type_signature.result
        ),
    )
