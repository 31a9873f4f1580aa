"""Models with a part that clients do not share, such as the head.

FedPer, FedRep, FedBN, FedRecon and FedBABU share this code. Clients receive only the shared part and send deltas of it,
and the server steps only the shared part. So the local part of the global weights stays the initial one, for any
aggregator and server optimizer. A client without its own local part starts from this initial part.
FedProto and FedAMP share no part.
"""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors, local_training, optimizers
from tff_personalization.algorithms import client_work, composition, method, stateful_clients
from tff_personalization.models import functional


class Split:
    """Splits a model's weights into a local part and the shared part.

    Attributes:
        initial_local: the local part before the first round, NumPy arrays.
    """

    def __init__(self, model: functional.SeededModel, local: Iterable[int]):
        """See the class; `local` has the places of the local weights, in their order."""
        initial = tuple(model.initial_weights[0])
        self._local = tuple(local)
        self._shared = tuple(i for i in range(len(initial)) if i not in self._local)
        self.initial_local: client_work.Weights = self.local(initial)

    def local(self, weights: client_work.Weights) -> client_work.Weights:
        """The local part of all weights."""
        return tuple(weights[i] for i in self._local)

    def shared(self, weights: client_work.Weights) -> client_work.Weights:
        """The shared part of all weights."""
        return tuple(weights[i] for i in self._shared)

    def join(self, shared: Iterable[Any], local: Iterable[Any]) -> client_work.Weights:
        """All weights, in the model's order, from both parts."""
        placed = dict(zip(self._shared, shared, strict=True)) | dict(zip(self._local, local, strict=True))
        return tuple(placed[i] for i in range(len(placed)))

    def with_initial_local(self, shared: client_work.Weights) -> client_work.Weights:
        """All weights of a client that has no local part of its own."""
        return self.join(shared, map(tf.constant, self.initial_local))

    def update(self, shared: client_work.Weights, end: local_training.LocalState) -> client_work.ClientUpdate:
        """The update of a client that received `shared` and whose local training ended with `end`."""
        return client_work.update_from(shared, end._replace(weights=self.shared(end.weights)))


def with_local_head(model: functional.SeededModel, name: str) -> Split:
    """The split of a model with a local head. Raises UserError as `check_model` does."""
    check_model(model, name)
    return Split(model, range(model.head.start, len(model.initial_weights[0])))


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
) -> local_training.LocalState:
    """The state after `epochs` epochs that train only the head; the rest is frozen.

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
    return training.train_epochs(weights, client, epochs)


class AggregationOfShared(tff.aggregators.WeightedAggregationFactory):
    """Aggregates deltas of the shared part with `inner` to a delta of all weights, with zeros for the local part."""

    def __init__(self, inner: tff.aggregators.WeightedAggregationFactory | None, split: Split):
        self._inner = inner or tff.aggregators.MeanFactory()
        self._split = split

    def create(self, value_type: tff.Type, weight_type: tff.Type) -> tff.templates.AggregationProcess:
        """The aggregation for deltas of the given type."""
        inner = self._inner.create(value_type, weight_type)

        @tff.tensorflow.computation(value_type)
        def with_zeros(delta: client_work.Weights) -> client_work.Weights:
            return self._split.join(delta, (tf.zeros(w.shape, w.dtype) for w in self._split.initial_local))

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


class StepOfShared(tff.learning.optimizers.Optimizer):
    """Steps the shared part as `inner` does. The local part is unchanged even if `inner` has decay or momentum."""

    def __init__(self, inner: tff.learning.optimizers.Optimizer, split: Split):
        self._inner, self._split = inner, split

    def initialize(self, specs: Any) -> Any:
        """The state of `inner` for the shared part."""
        return self._inner.initialize(self._split.shared(specs))

    def next(
        self, state: Any, weights: client_work.Weights, gradients: client_work.Weights
    ) -> tuple[Any, client_work.Weights]:
        """The state of `inner`, and the weights, after a step."""
        state, moved = self._inner.next(state, self._split.shared(weights), self._split.shared(gradients))
        return state, self._split.join(moved, self._split.local(weights))


def process(
    setup: method.Setup[method.Federated], split: Split, update: client_work.UpdateFn, weighting: str
) -> tff.learning.templates.LearningProcess:
    """As `Setup.process`, for an `update` that receives only the shared part and has a delta of it."""
    return composition.build_process(
        setup.model,
        update,
        weighting,
        StepOfShared(setup.optimizer(optimizers.SERVER), split),
        AggregationOfShared(setup.aggregator, split),
        received=split.shared,
    )


def process_with_kept_parts(
    setup: method.Setup[method.Federated], split: Split, update: client_work.UpdateFn, weighting: str
) -> stateful_clients.StatefulProcess:
    """As `process`, for clients that keep their local parts. `update` finds such a part in `state.client`."""
    model = setup.model
    return stateful_clients.build_stateful_process(
        model,
        update,
        weighting,
        split.initial_local,
        StepOfShared(setup.optimizer(optimizers.SERVER), split),
        AggregationOfShared(setup.aggregator, split),
        received=split.shared,
        personal=lambda weights, local: (model, split.join(split.shared(weights), local)),
    )


def process_without_shared_part(
    model: functional.SeededModel,
    update: client_work.UpdateFn,
    client_state: Any,
    personal: stateful_clients.PersonalFn,
    *,
    server_state: client_work.ServerState = client_work.NO_SERVER_STATE,
    exchange: stateful_clients.ExchangeFn | None = None,
) -> stateful_clients.StatefulProcess:
    """A process whose clients neither receive nor send weights; the global ones stay the initial ones.

    The `model_delta` of an update is empty. Arguments are those of `stateful_clients.build_stateful_process`.
    """
    nothing = Split(model, range(len(model.initial_weights[0])))
    return stateful_clients.build_stateful_process(
        model,
        update,
        "uniform",
        client_state,
        StepOfShared(tff.learning.optimizers.build_sgdm(1.0), nothing),
        AggregationOfShared(None, nothing),
        server_state=server_state,
        received=nothing.shared,
        personal=personal,
        exchange=exchange,
    )


def check_model(model: functional.SeededModel, name: str) -> None:
    """Raises UserError if the model is only a head, which the method of this name keeps local."""
    if model.rest.stop == 0:
        raise errors.UserError(
            f"--model: the whole network is its head, which --method={name} keeps local: choose another --model."
        )
