"""A client's work in a round: it makes a model delta from the global model and its own data.

A method defines this work with an `UpdateFn`. The rest of a round is the same for all methods.
"""

import collections
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors, global_weights, local_training, structures
from tff_personalization.models import functional

WEIGHTINGS = ("examples", "uniform")
ClientRound = local_training.ClientRound
Weights = tuple[tf.Tensor, ...]
# Maps the flat global weights to those of them that clients receive.
ReceivedFn = Callable[[Weights], Weights]


class State(NamedTuple):
    """The state from earlier rounds that a client of the cohort receives.

    Attributes:
        server: the server's state, which is sent to all clients; see `ServerState`.
        client: what this client kept from the last round in which it took part; see `stateful_clients`.
    """

    server: Any = ()
    client: Any = ()


class ClientUpdate(NamedTuple):
    """The result of a client's round.

    Attributes:
        model_delta: what the aggregator makes into the server optimizer's gradient; usually in the structure of the
            global weights.
        loss_sum: float32, the sum of the losses of all predictions on the visited examples.
        correct: the number of right predictions among them; see `functional.Scoring.score`.
        predictions: int32, the number of predictions.
        examples: int32, visited examples.
        report: what the client adds to the sum from which the server's next state is made.
        state: what the client keeps, in the structure of `State.client`.
        weighed: int32, how many examples count in its weight; None for all of the client's examples.
        extra_examples: int32, visits that `examples` leaves out, such as those of losses that choose a cluster. Each
            pass of an example through the network, or through its head, is a visit.
    """

    model_delta: Weights
    loss_sum: tf.Tensor
    correct: tf.Tensor
    predictions: tf.Tensor
    examples: tf.Tensor
    report: Any = ()
    state: Any = ()
    weighed: tf.Tensor | None = None
    extra_examples: tf.Tensor | int = 0


# (global weights that the client receives, the client's round, state) -> ClientUpdate
UpdateFn = Callable[[Weights, ClientRound, State], ClientUpdate]


class ServerState(NamedTuple):
    """What a method's server keeps from round to round besides the global weights and the server optimizer's state.

    Attributes:
        initial: makes the state before the first round, a structure of tensors.
        next: `(state, sum of the clients' reports) -> state`. It is not called if no client took part in the round.
    """

    initial: Callable[[], Any] = tuple
    next: Callable[[Any, Any], Any] = lambda state, total: total


NO_SERVER_STATE = ServerState()


def client_data_type(model: functional.SeededModel) -> tff.Type:
    """The type of one client's data in a round, a sequence of one element.

        <x=…, y=int32[?], seed=int32[2], round=int32, step_share=float32>*

    The element holds all of the client's examples, the seed of its shuffling and dropout, the round, and the share of
    its steps that the client finishes (1 unless it is a straggler). TFF requires client data to be a sequence. A
    sequence of one element avoids a `tf.data` pipeline, which costs more than a training step.
    """
    x, y = model.input_spec
    element = collections.OrderedDict(
        x=x,
        y=y,
        seed=tf.TensorSpec([2], tf.int32),
        round=tf.TensorSpec([], tf.int32),
        step_share=tf.TensorSpec([], tf.float32),
    )
    return tff.SequenceType(tff.types.tensorflow_to_type(element))


def client_round(data: tf.data.Dataset) -> ClientRound:
    """The `ClientRound` of a value of `client_data_type`."""
    element = data.get_single_element()
    examples = local_training.Examples(element["x"], element["y"])
    return ClientRound(examples, element["seed"], element["round"], element["step_share"])


def weights_type(weights: global_weights.GlobalWeights) -> tff.Type:
    """The `tff.learning.models.ModelWeights` type of global weights."""
    return _model_weights_type(weights.flat)


def _model_weights_type(flat: Weights) -> tff.Type:
    specs = tuple(tf.TensorSpec(w.shape, w.dtype) for w in flat)
    return tff.types.tensorflow_to_type(tff.learning.models.ModelWeights(specs, ()))


def update_from(theta: Weights, end: local_training.LocalState, *, report: Any = (), state: Any = ()) -> ClientUpdate:
    """The update of a client whose local training from θ ended with `end`."""
    model_delta = tuple(before - after for before, after in zip(theta, end.weights, strict=True))
    return ClientUpdate(model_delta, end.loss_sum, end.correct, end.predictions, end.examples, report, state)


class ClientWorkParts(NamedTuple):
    """The parts of client work, with or without states that clients keep.

    Attributes:
        initialize: the computation that makes the server's first state.
        types: the types of the arguments of `next`.
        next: a function for a federated computation. It maps the server's state, the global weights at the clients,
            their data, and their states if they keep any, to the output of client work and what the clients keep.
        result_type: the type of one client's update and its weight.
    """

    initialize: tff.Computation
    types: tuple[tff.FederatedType, ...]
    next: Callable[..., tuple[tff.templates.MeasuredProcessOutput, Any]]
    result_type: tff.Type


def client_work_parts(
    model: functional.SeededModel,
    update: UpdateFn,
    weighting: str,
    initial_weights: global_weights.GlobalWeights | None = None,
    server_state: ServerState = NO_SERVER_STATE,
    received: ReceivedFn | None = None,
    client_state_type: tff.Type | None = None,
) -> ClientWorkParts:
    """The parts of the client work in which each client of the cohort does `update`.

    A client takes part if it has examples and its whole result is finite. Any other client gets weight 0, a zero delta
    and a zero report. The measurements are `clients` (how many took part), `non_finite_clients` (how many had a result
    that is not finite), `examples` (visits), `train_loss` (nats), `train_accuracy` (over the predictions on those
    visits, each before its own step) and `extra_examples` (other visits).

    Args:
        model: the model to train.
        update: what a client does.
        weighting: "examples" weights a client's delta by its number of examples, "uniform" by 1.
        initial_weights: the global weights before the first round, if a method adds to the model's.
        server_state: what the server keeps besides them; by default nothing.
        received: the global weights that clients receive, if not all.
        client_state_type: the type of a client's state, if it keeps one.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting: one of {WEIGHTINGS} expected, got {weighting!r}")
    server_state_at_start = tff.tensorflow.computation(lambda: server_state.initial())
    server_state_type = server_state_at_start.type_signature.result
    all_weights = (initial_weights or global_weights.GlobalWeights.initial(model)).flat
    at_clients = [
        _model_weights_type(received(all_weights) if received else all_weights),
        client_data_type(model),
        *([] if client_state_type is None else [client_state_type]),
    ]

    def train(
        server: Any, weights: tff.learning.models.ModelWeights, data: tf.data.Dataset, kept: Any
    ) -> tuple[tff.learning.templates.ClientResult, Mapping[str, tf.Tensor], Any, Any]:
        client = client_round(data)
        found = update(tuple(weights.trainable), client, State(server, kept))
        if not isinstance(found, ClientUpdate):
            raise errors.UserError(
                f"the method's update gives {errors.described(found)}; a client_work.ClientUpdate is expected, as "
                "from client_work.update_from."
            )
        structures.check_types("the method's update", "the client's state", kept, found.state)
        size = tf.cast(tf.shape(client.examples.y)[0] if found.weighed is None else found.weighed, tf.float32)
        return _what_counts(found, size if weighting == "examples" else tf.minimum(size, 1.0), kept)

    if client_state_type is None:
        of_client = tf.function(lambda server, weights, data: train(server, weights, data, ()), autograph=False)
    else:
        of_client = tf.function(train, autograph=False)
    train_client = tff.tensorflow.computation(of_client, (server_state_type, *at_clients))
    result_type = train_client.type_signature.result
    finalize = tff.tensorflow.computation(_finalized, result_type[1])

    @tff.federated_computation
    def initialize() -> tff.Value:
        return tff.federated_eval(server_state_at_start, tff.SERVER)

    def next_fn(
        state: tff.Value, *values_at_clients: tff.Value
    ) -> tuple[tff.templates.MeasuredProcessOutput, tff.Value]:
        result, measured, report, kept = tff.federated_map(
            train_client, (tff.federated_broadcast(state), *values_at_clients)
        )
        total = tff.federated_sum(measured)
        if len(server_state_type) > 0:

            @tff.tensorflow.computation(server_state_type, result_type[2], result_type[1])
            def next_server_state(state: Any, report: Any, total: Mapping[str, tf.Tensor]) -> Any:
                after = server_state.next(state, report)
                structures.check_types("next of the method's ServerState", "state", state, after)
                return structures.where(total["clients"] > 0, after, state)

            state = tff.federated_map(next_server_state, (state, tff.federated_sum(report), total))
        return tff.templates.MeasuredProcessOutput(state, result, tff.federated_map(finalize, total)), kept

    types = (initialize.type_signature.result, *(tff.FederatedType(type_, tff.CLIENTS) for type_ in at_clients))
    return ClientWorkParts(initialize, types, next_fn, result_type[0])


def _what_counts(
    found: ClientUpdate, weight: tf.Tensor, kept: Any
) -> tuple[tff.learning.templates.ClientResult, Mapping[str, tf.Tensor], Any, Any]:
    """What a client contributes: delta and weight, sums for the measurements, report, and the state that it now keeps.

    If its result is not finite, nothing counts; it keeps its old state.
    """
    finite = structures.all_finite((found.model_delta, found.report, found.state))
    took_part = tf.logical_and(finite, found.examples > 0)
    measured = collections.OrderedDict(
        clients=tf.cast(took_part, tf.int32),
        non_finite_clients=tf.cast(tf.logical_not(finite), tf.int32),
        examples=tf.where(finite, found.examples, 0),
        loss_sum=tf.where(finite, found.loss_sum, 0.0),
        correct=tf.where(finite, found.correct, tf.zeros_like(found.correct)),
        predictions=tf.where(finite, found.predictions, 0),
        extra_examples=tf.where(finite, found.extra_examples, 0),
    )
    delta = structures.zero_unless(finite, found.model_delta)
    result = tff.learning.templates.ClientResult(delta, tf.where(finite, weight, 0.0))
    report = structures.zero_unless(took_part, found.report)
    return result, measured, report, structures.where(took_part, found.state, kept)


def _finalized(total: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
    """The measurements of a round, from the sums over its clients."""
    predictions = tf.cast(total["predictions"], tf.float32)
    return collections.OrderedDict(
        clients=total["clients"],
        non_finite_clients=total["non_finite_clients"],
        examples=total["examples"],
        train_loss=tf.math.divide_no_nan(total["loss_sum"], predictions),
        train_accuracy=tf.math.divide_no_nan(tf.cast(total["correct"], tf.float32), predictions),
        extra_examples=total["extra_examples"],
    )
