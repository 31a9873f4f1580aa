"""Defines a method: how it trains a global model, the settings that it reads, and the strategies that may follow.

A method is a file with a `METHOD` and a line in `methods.METHODS`. Cohorts, evaluation and checkpoints are the same for
all methods.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import tensorflow_federated as tff

from tff_personalization import aggregators, cohorts, global_weights, local_training, optimizers, schedules
from tff_personalization.algorithms import client_work, composition, stateful_clients
from tff_personalization.models import functional
from tff_personalization.settings import Group, Setting
from tff_personalization.tasks import client_arrays

LearningProcess: TypeAlias = tff.learning.templates.LearningProcess | stateful_clients.StatefulProcess
S = TypeVar("S", bound=Group, covariant=True)

SERVES = ("held-out", "participants", "both")

# Settings of several methods.
BATCH_SIZE = Setting(20, "Examples in a batch of local training.", least=1)
CLIENT_WEIGHTING = Setting(
    "examples",
    "How a client's model delta is weighted. Always uniform with --aggregator=dp.",
    choices=client_work.WEIGHTINGS,
)
HEAD_EPOCHS = Setting(
    10, "Epochs in which a client trains only its head, before it trains the rest of the model.", least=0
)
HEAD_LEARNING_RATE: Setting[float | None] = Setting(
    None,
    "Learning rate of the plain SGD that trains a client's head in fed_recon, reconstruct and reconstruct_head. "
    "Default: the optimizer of the rest trains the head too.",
    kind=float,
    positive=True,
)
LOCAL_EPOCHS = Setting(10, "E of FedAvg(E): passes over a client's data in a round.", least=1)
LOCAL_STEPS = Setting(10, "K of Reptile(K) and of meta-learning: a client's steps in a round.", least=1)
QUERY_FRACTION = Setting(
    0.5,
    "Share of a client's examples, drawn again each round, on which fomaml, maml and meta_sgd evaluate the adapted "
    "model; they adapt it on the other examples. Each part gets at least one example. With 0, or with a single "
    "example, both parts have all examples.",
    least=0,
    most=1,
)
INNER_LEARNING_RATE = Setting(
    0.02,
    "Learning rate of per_fed_avg's inner step, and of each weight in meta_sgd before it learns better ones.",
    least=1e-6,
)


class Local(cohorts.WithStragglers):
    """The settings of methods whose clients take local steps with the client optimizer."""

    client = optimizers.CLIENT
    batch_size = BATCH_SIZE


class Federated(Local):
    """The settings of most federated methods."""

    server = optimizers.SERVER
    aggregator = aggregators.AGGREGATOR


@dataclasses.dataclass(frozen=True)
class Setup(Generic[S]):
    """What a method's learning process is built from.

    Attributes:
        model: the model to train.
        settings: the method's own, with the optimizers of its roles.
        rounds: the number of rounds, for schedules of learning rates.
        aggregator: how the model deltas of a cohort are aggregated; by default their weighted mean.
        shuffle: whether clients permute their examples in each epoch.
    """

    model: functional.SeededModel
    settings: S
    rounds: int = 1
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None
    shuffle: bool = True

    def optimizer(self, role: optimizers.Role) -> tff.learning.optimizers.Optimizer:
        """The TFF optimizer of one of the method's roles, with its schedule."""
        spec: optimizers.OptimizerSpec = self.settings.values[role.name]
        if spec.schedule == schedules.Schedule():
            return spec.build()
        if role is optimizers.CLIENT:
            return schedules.for_clients(spec.build(), spec.schedule, self.rounds)
        return schedules.for_server(spec.build(), spec.learning_rate, spec.schedule, self.rounds)

    def local_training(self: "Setup[Local]", trained: slice = slice(None)) -> local_training.LocalTraining:
        """The inner loop with the client optimizer and the batch size of the settings.

        Args:
            trained: which weights are trained; the others do not change.
        """
        optimizer, settings = self.optimizer(optimizers.CLIENT), self.settings
        return local_training.LocalTraining(
            self.model, optimizer, settings.batch_size, trained=trained, shuffle=self.shuffle
        )

    def process(
        self,
        update: client_work.UpdateFn,
        weighting: str,
        *,
        server: optimizers.Role = optimizers.SERVER,
        initial_weights: global_weights.GlobalWeights | None = None,
    ) -> tff.learning.templates.LearningProcess:
        """The learning process in which clients do `update`; see `composition.build_process`.

        Args:
            update: what a client does.
            weighting: "examples" or "uniform".
            server: the role of the optimizer that takes one step a round, with the mean delta as its gradient.
            initial_weights: the global weights before the first round, if the method adds to the model's.
        """
        return composition.build_process(
            self.model, update, weighting, self.optimizer(server), self.aggregator, initial_weights=initial_weights
        )

    def stateful_process(
        self,
        update: client_work.UpdateFn,
        weighting: str,
        client_state: Any,
        personal: stateful_clients.PersonalFn | None = None,
        server_state: client_work.ServerState = client_work.NO_SERVER_STATE,
    ) -> stateful_clients.StatefulProcess:
        """As `process`, for clients that keep states; arguments as `stateful_clients.build_stateful_process`."""
        return stateful_clients.build_stateful_process(
            self.model,
            update,
            weighting,
            client_state,
            self.optimizer(optimizers.SERVER),
            self.aggregator,
            personal=personal,
            server_state=server_state,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSetup(Setup[S]):
    """What a method is built from in a run: a process's setup and the clients that train.

    Attributes:
        train_data: the train part of the clients' data.
        train_clients: the ids of the clients that train.
        seed: the run's seed.
        build_model: makes the untrained model, with initial weights drawn from a generator.
    """

    train_data: client_arrays.ClientArrays
    train_clients: tuple[str, ...]
    seed: int
    build_model: Callable[[np.random.Generator], functional.SeededModel]

    def cohorts(self) -> cohorts.CohortFn:
        """Cohorts drawn from the train clients, as the settings say."""
        assert isinstance(self.settings, cohorts.Settings)
        return cohorts.sampled(self.settings, self.train_data, self.train_clients, self.seed)

    def training(
        self, name: str, process: LearningProcess, initial_weights: global_weights.GlobalWeights | None = None
    ) -> "Training":
        """Training in one stage, whose cohorts are drawn from the train clients."""
        start = initial_weights or global_weights.GlobalWeights.initial(self.model)
        return Training((Stage(name, 1, process),), self.cohorts(), start)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A learning process and its first round. It starts from the model of the previous stage.

    A stage of a stateful process starts with fresh client states.
    """

    name: str
    first_round: int
    process: LearningProcess


@dataclasses.dataclass(frozen=True)
class Training:
    """How a global model is trained.

    Attributes:
        stages: in the order of their first rounds; the first begins with round 1. Without any, the model stays
            untrained.
        cohort: maps a round's number to its clients.
        initial_weights: the global weights before the first round.
    """

    stages: tuple[Stage, ...]
    cohort: cohorts.CohortFn
    initial_weights: global_weights.GlobalWeights

    def stage_of(self, round_number: int) -> Stage:
        """The stage of a round."""
        return [stage for stage in self.stages if stage.first_round <= round_number][-1]


def one_stage(name: str, build: Callable[[Setup[S]], LearningProcess]) -> Callable[[RunSetup[S]], Training]:
    """The `Method.build` of a method that trains with one process from its first round to its last.

    Args:
        name: the name of the stage, as in the records.
        build: makes the process.
    """

    @functools.wraps(build)  # for the module in which it is defined
    def build_training(setup: RunSetup[S]) -> Training:
        return setup.training(name, build(setup))

    return build_training


@dataclasses.dataclass(frozen=True)
class Method(Generic[S]):
    """A way to train a global model, and the strategies that follow by default.

    Attributes:
        description: what it is, in a line.
        settings: the settings that it reads besides those of every run.
        build: makes the training from a setup; see `one_stage`.
        strategies: the strategies evaluated unless `--strategies` says otherwise.
        trains: whether it has rounds.
        pooled: whether a round is the work of one client that holds all the data. That client gets all cores.
        provides: the name of what it adds to the global weights, for strategies that need it; "" for nothing.
        complete: given the values of all settings, fills in those that depend on others. Raises UserError if values do
            not fit together.
        plain_sgd: whether the client optimizer must be SGD without momentum.
        means_only: whether the aggregate must be a weighted mean of deltas that were each transformed by themselves.
        first_stage: the method that has the same rounds before `stage_2_round`; "" without a second stage.
        serves: whom it is for, one of `SERVES`: held-out clients by strategies, participants with what they keep, or
            both.
        differs: how it differs from its source with default settings, for tables; "" if no difference is known.
    """

    description: str
    settings: type[S]
    build: Callable[[RunSetup[S]], Training]
    strategies: Sequence[str] = ("fine_tune", "fine_tune_head")
    trains: bool = True
    pooled: bool = False
    provides: str = ""
    complete: Callable[[dict[str, Any]], None] = lambda values: None
    plain_sgd: bool = False
    means_only: bool = False
    first_stage: str = ""
    serves: str = "both"
    differs: str = ""

    def fits(self, needed: str) -> bool:
        """Whether a strategy that needs something can follow; see `adaptation.Strategy.needs`."""
        return needed in ("", self.provides)
