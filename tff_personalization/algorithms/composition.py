"""One round of Algorithm 1's outer loop around the clients' work, from TFF's parts."""

from typing import NamedTuple

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors, global_weights, optimizers
from tff_personalization.algorithms import client_work
from tff_personalization.models import functional


def build_process(
    model: functional.SeededModel,
    update: client_work.UpdateFn,
    weighting: str,
    server_optimizer: tff.learning.optimizers.Optimizer,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
    *,
    initial_weights: global_weights.GlobalWeights | None = None,
    server_state: client_work.ServerState = client_work.NO_SERVER_STATE,
    received: client_work.ReceivedFn | None = None,
) -> tff.learning.templates.LearningProcess:
    """One round of Algorithm 1's outer loop: broadcast θ, client work, (weighted) mean of the deltas, server step.

    If no client of a round has a finite delta, the mean is undefined, and the finalizer does not change θ or its state.

    Args:
        model, update, weighting, initial_weights, server_state, received: as in `client_work.client_work_parts`.
        server_optimizer: takes a step with the aggregate as its gradient.
        aggregator: makes one delta of the clients' deltas; by default their weighted mean.
    """
    work = client_work.client_work_parts(model, update, weighting, initial_weights, server_state, received)
    around = surroundings(model, work.result_type, server_optimizer, aggregator, initial_weights, received)

    @tff.federated_computation(*work.types)
    def next_fn(state: tff.Value, weights: tff.Value, data: tff.Value) -> tff.Value:
        output, _ = work.next(state, weights, data)
        return output

    return tff.learning.templates.compose_learning_process(
        around.initial_model_weights,
        around.broadcast,
        tff.learning.templates.ClientWorkProcess(work.initialize, next_fn),
        around.aggregation,
        around.finalizer,
    )


class Surroundings(NamedTuple):
    """TFF's parts of a round, around client work."""

    initial_model_weights: tff.Computation
    broadcast: tff.learning.templates.DistributionProcess
    aggregation: tff.templates.AggregationProcess
    finalizer: tff.learning.templates.FinalizerProcess


def surroundings(
    model: functional.SeededModel,
    result_type: tff.Type,
    server_optimizer: tff.learning.optimizers.Optimizer,
    aggregator: tff.aggregators.WeightedAggregationFactory | None,
    initial_weights: global_weights.GlobalWeights | None,
    received: client_work.ReceivedFn | None,
) -> Surroundings:
    """The parts of `build_process` besides client work. `result_type` is the type of an update and its weight."""
    start = (initial_weights or global_weights.GlobalWeights.initial(model)).flat

    @tff.tensorflow.computation
    def initial_model_weights() -> tff.learning.models.ModelWeights:
        return tff.learning.models.ModelWeights(tuple(tf.constant(w) for w in start), ())

    global_type = initial_model_weights.type_signature.result
    factory = aggregator or tff.aggregators.MeanFactory()
    aggregation = factory.create(result_type.update, result_type.update_weight)
    made = aggregation.next.type_signature.result.result.member
    if not tff.to_type(global_type.trainable).is_assignable_from(made):
        raise errors.UserError(
            f"the method's update gives model deltas of which the aggregator makes {made.compact_representation()}; "
            f"{global_type.trainable.compact_representation()}, the type of the global weights, is expected."
        )
    return Surroundings(
        initial_model_weights,
        _broadcast(global_type, received),
        aggregation,
        tff.learning.templates.build_apply_optimizer_finalizer(optimizers.NotConverted(server_optimizer), global_type),
    )


def _broadcast(
    global_type: tff.Type, received: client_work.ReceivedFn | None
) -> tff.learning.templates.DistributionProcess:
    """Sends each client the global weights, or those that clients receive."""
    if received is None:
        return tff.learning.templates.build_broadcast_process(global_type)

    @tff.tensorflow.computation(global_type)
    def part(weights: tff.learning.models.ModelWeights) -> tff.learning.models.ModelWeights:
        return tff.learning.models.ModelWeights(received(tuple(weights.trainable)), ())

    of_part = tff.learning.templates.build_broadcast_process(part.type_signature.result)

    @tff.federated_computation(of_part.initialize.type_signature.result, tff.FederatedType(global_type, tff.SERVER))
    def next_fn(state: tff.Value, weights: tff.Value) -> tff.templates.MeasuredProcessOutput:
        return of_part.next(state, tff.federated_map(part, weights))

    return tff.learning.templates.DistributionProcess(of_part.initialize, next_fn)
