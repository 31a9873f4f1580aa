"""Models with a local head for each client; the rest is shared.

FedPer, FedRep and FedRecon share this code. Clients send deltas of only the rest, and the server steps only the rest.
So the head in the global weights stays the initial head, for any aggregator and server optimizer. A client without its
own head starts from it.
"""

from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors, local_training, optimizers
from tff_personalization.algorithms import client_work, method, stateful_clients
from tff_personalization.models import functional


def update_of_rest(
    model: functional.SeededModel, theta: client_work.Weights, end: local_training.LocalState
) -> client_work.ClientUpdate:
    """The update of a client whose local training ended with `end`. Only the rest has a delta."""
    found = client_work.update_from(theta, end)
    return found._replace(model_delta=found.model_delta[model.rest])


def head_optimizer(
    learning_rate: float | None, other: tff.learning.optimizers.Optimizer
) -> tff.learning.optimizers.Optimizer:
    """The optimizer of heads: plain SGD at `--head_learning_rate` if that is given, else `other`."""
    return other if learning_rate is None else tff.learning.optimizers.build_sgdm(learning_rate)


def train_head(
    model: functional.SeededModel,
    optimizer: tff.learning.optimizers.Optimizer,
    batch_size: int,
    weights: client_work.Weights,
    client: local_training.ClientRound,
    epochs: int,
    shuffle: bool = True,
) -> client_work.Weights:
    """The weights after `epochs` epochs that train only the head; the rest is frozen.

    Args:
        model: the model.
        optimizer: takes the steps; its state is fresh.
        batch_size: examples a step.
        weights: where training starts.
        client: its examples, with features of these weights instead of images, so the frozen stem is computed once.
        epochs: passes over the examples.
        shuffle: whether they are permuted in each epoch.
    """
    training = local_training.LocalTraining(
        model.after_stem, optimizer, batch_size, trained=model.head, shuffle=shuffle
    )
    return training.train(weights, client, epochs * training.steps_per_epoch(client.examples)).weights


class AggregationOfRest(tff.aggregators.WeightedAggregationFactory):
    """Aggregates deltas of the rest with `inner` to a delta of all weights, with zeros for the head."""

    def __init__(self, inner: tff.aggregators.WeightedAggregationFactory | None, model: functional.SeededModel):
        self._inner = inner or tff.aggregators.MeanFactory()
        self._head = model.initial_weights[0][model.head]

    def create(self, value_type: tff.Type, weight_type: tff.Type) -> tff.templates.AggregationProcess:
        """The aggregation for deltas of the given type."""
        inner = self._inner.create(value_type, weight_type)

        @tff.tensorflow.computation(value_type)
        def with_zeros(delta: client_work.Weights) -> client_work.Weights:
            return (*delta, *(tf.zeros(w.shape, w.dtype) for w in self._head))

        @tff.federated_computation(
            inner.initialize.type_signature.result,
            tff.FederatedType(value_type, tff.CLIENTS),
            tff.FederatedType(weight_type, tff.CLIENTS),
        )
        def next_fn(state: tff.Value, value: tff.Value, weight: tff.Value) -> tff.templates.MeasuredProcessOutput:
            output = inner.next(state, value, weight)
            delta = tff.federated_map(with_zeros, output.result)
            return tff.templates.MeasuredProcessOutput(output.state, delta, output.measurements)

        return tff.templates.AggregationProcess(inner.initialize, next_fn)


class StepOfRest(tff.learning.optimizers.Optimizer):
    """Steps the rest as `inner` does, and leaves the head unchanged even if `inner` has decay or momentum."""

    def __init__(self, inner: tff.learning.optimizers.Optimizer, model: functional.SeededModel):
        self._inner = inner
        self._rest, self._head = model.rest, model.head

    def initialize(self, specs: Any) -> Any:
        """The state of `inner` for the rest."""
        return self._inner.initialize(tuple(specs[self._rest]))

    def next(
        self, state: Any, weights: client_work.Weights, gradients: client_work.Weights
    ) -> tuple[Any, client_work.Weights]:
        """The state of `inner`, and the weights, after a step."""
        state, moved = self._inner.next(state, tuple(weights[self._rest]), tuple(gradients[self._rest]))
        return state, (*moved, *weights[self._head])


def process(
    setup: method.Setup[method.Federated], update: client_work.UpdateFn, weighting: str
) -> tff.learning.templates.LearningProcess:
    """As `Setup.process`, for an `update` that has a delta of only the rest."""
    model = setup.model
    return client_work.compose(
        model,
        client_work.build_client_work(model, update, weighting),
        StepOfRest(setup.optimizer(optimizers.SERVER), model),
        AggregationOfRest(setup.aggregator, model),
    )


def process_with_kept_heads(
    setup: method.Setup[method.Federated], update: client_work.UpdateFn, weighting: str
) -> stateful_clients.StatefulProcess:
    """As `process`, for clients that keep their heads between rounds. `update` finds the head in `state.client`."""
    model = setup.model
    return stateful_clients.build_stateful_process(
        model,
        update,
        weighting,
        model.initial_weights[0][model.head],
        StepOfRest(setup.optimizer(optimizers.SERVER), model),
        AggregationOfRest(setup.aggregator, model),
        personal=lambda weights, head: (model, (*weights[model.rest], *head)),
    )


def check_model(model: functional.SeededModel, name: str) -> None:
    """Raises UserError if the model is only a head, which the method of this name keeps local."""
    if model.rest.stop == 0:
        raise errors.UserError(
            f"--model: the whole network is its head, which --method={name} keeps local: choose another --model."
        )
