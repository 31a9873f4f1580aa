"""Methods whose clients keep something from round to round, such as SCAFFOLD's control variates.

In a deployment a client keeps its state on its device, and only clients that return use it. In simulation the program
keeps all states (`records/client_states.py`). It gives the cohort's states to the process and stores the new ones:

    for each round:
        s_i ← what client i of the cohort kept, or the initial state in its first round
        client work: (θ, data of i, s_i) → (Δ_i, s_i⁺); then as in a process without client states
        client i keeps s_i⁺
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors
from tff_personalization.algorithms import client_work, composition
from tff_personalization.models import functional

LearningAlgorithmState: TypeAlias = tff.learning.templates.LearningAlgorithmState
# Maps the flat global weights and what a client keeps to the client's model and its weights.
PersonalFn = Callable[[client_work.Weights, Any], tuple[functional.Classifier, client_work.Weights]]
# Maps the new states of a cohort's clients, and their weights in the mean (0: took no part), both values at the
# clients, to their states after they exchanged parts of them.
ExchangeFn = Callable[[tff.Value, tff.Value], tff.Value]


def type_of(client_state: Any) -> tff.Type:
    """The type of a client's state, from its value before the first round. UserError if it has other than arrays."""
    for leaf in tf.nest.flatten(client_state):
        if not isinstance(leaf, np.ndarray | np.generic):
            raise errors.UserError(
                f"the method's client_state has {errors.described(leaf)}; a structure of NumPy arrays is expected."
            )
    specs = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), client_state)
    return tff.types.tensorflow_to_type(specs)


class StatefulOutput(NamedTuple):
    """What `StatefulProcess.next` returns.

    Attributes:
        state: the server's state of the next round.
        metrics: as those of a TFF learning process.
        client_states: the new state of each client of the cohort, in the cohort's order.
    """

    state: Any
    metrics: Any
    client_states: Any


@dataclasses.dataclass(frozen=True)
class StatefulProcess:
    """A learning process whose clients keep states, which `tff.learning.templates.LearningProcess` does not support.

    Attributes:
        initialize: `( -> S@SERVER)`.
        next: `(<S@SERVER, {<x, y, seed, round>*}@CLIENTS, C@CLIENTS> -> <S@SERVER, M@SERVER, C@CLIENTS>)`. A client
            without examples, or with an update that is not finite, keeps its old state.
        get_model_weights: `(S -> W)`.
        set_model_weights: `(<S, W> -> S)`.
        client_state: a client's state before its first round, a structure of NumPy arrays of type C.
        personal: makes a client's own model from its state; None if it keeps no model.
    """

    initialize: tff.Computation
    next: tff.Computation
    get_model_weights: tff.Computation
    set_model_weights: tff.Computation
    client_state: Any
    personal: PersonalFn | None = None


def build_stateful_process(
    model: functional.SeededModel,
    update: client_work.UpdateFn,
    weighting: str,
    client_state: Any,
    server_optimizer: tff.learning.optimizers.Optimizer,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
    *,
    server_state: client_work.ServerState = client_work.NO_SERVER_STATE,
    received: client_work.ReceivedFn | None = None,
    personal: PersonalFn | None = None,
    exchange: ExchangeFn | None = None,
) -> StatefulProcess:
    """As `composition.build_process`, for clients that keep states.

    One call computes all clients of a cohort, because each returns its own value.

    Args:
        model, weighting, server_optimizer, aggregator, server_state, received: as in `composition.build_process`.
        update: what a client does; it finds its state in `state.client` and leaves the new one in `ClientUpdate.state`.
        client_state: a client's state before its first round, a structure of NumPy arrays.
        personal: makes a client's own model from its state, if it keeps one.
        exchange: what the clients do with their new states after their work, through the server; nothing unless given.
    """
    work = client_work.client_work_parts(model, update, weighting, None, server_state, received, type_of(client_state))
    initial_model_weights, broadcast, aggregation, finalizer = composition.surroundings(
        model, work.result_type, server_optimizer, aggregator, None, received
    )
    _, _, data_type, client_state_type = work.types

    @tff.federated_computation
    def initialize() -> tff.Value:
        return tff.federated_zip(
            LearningAlgorithmState(
                tff.federated_eval(initial_model_weights, tff.SERVER),
                broadcast.initialize(),
                work.initialize(),
                aggregation.initialize(),
                finalizer.initialize(),
            )
        )

    @tff.federated_computation(initialize.type_signature.result, data_type, client_state_type)
    def next_fn(state: tff.Value, data: tff.Value, client_states: tff.Value) -> StatefulOutput:
        sent = broadcast.next(state.distributor, state.global_model_weights)
        worked, kept = work.next(state.client_work, sent.result, data, client_states)
        if exchange is not None:
            kept = exchange(kept, worked.result.update_weight)
        aggregated = aggregation.next(state.aggregator, worked.result.update, worked.result.update_weight)
        finalized = finalizer.next(state.finalizer, state.global_model_weights, aggregated.result)
        new_state = LearningAlgorithmState(
            finalized.result, sent.state, worked.state, aggregated.state, finalized.state
        )
        metrics = collections.OrderedDict(
            distributor=sent.measurements,
            client_work=worked.measurements,
            aggregator=aggregated.measurements,
            finalizer=finalized.measurements,
        )
        return StatefulOutput(tff.federated_zip(new_state), tff.federated_zip(metrics), kept)

    state_type = initialize.type_signature.result.member

    @tff.tensorflow.computation(state_type)
    def get_model_weights(state: LearningAlgorithmState) -> tff.learning.models.ModelWeights:
        return state.global_model_weights

    @tff.tensorflow.computation(state_type, initial_model_weights.type_signature.result)
    def set_model_weights(
        state: LearningAlgorithmState, weights: tff.learning.models.ModelWeights
    ) -> LearningAlgorithmState:
        return LearningAlgorithmState(weights, state.distributor, state.client_work, state.aggregator, state.finalizer)

    return StatefulProcess(initialize, next_fn, get_model_weights, set_model_weights, client_state, personal)
