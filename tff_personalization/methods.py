"""Methods: how a global model is trained, and which strategies may follow.

A method is a file with a `METHOD` and a line in `METHODS`. The running of it (cohorts, evaluation, checkpoints) is
the same for all.
"""

import collections
import dataclasses
import importlib
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import aggregators, global_weights, optimizers, registries, schedules, seeds
from tff_personalization.algorithms import stateful_clients
from tff_personalization.models import functional
from tff_personalization.tasks import client_arrays

# A module that has a METHOD, or the method itself.
METHODS: dict[str, "str | Method"] = {
    "fed_avg": "tff_personalization.algorithms.fed_avg",
    "reptile": "tff_personalization.algorithms.reptile",
    "personalized_fed_avg": "tff_personalization.algorithms.personalized_fed_avg",
    "fomaml": "tff_personalization.algorithms.fomaml",
    "maml": "tff_personalization.algorithms.maml",
    "per_fed_avg": "tff_personalization.algorithms.per_fed_avg",
    "meta_sgd": "tff_personalization.algorithms.meta_sgd",
    "ifca": "tff_personalization.algorithms.ifca",
    "fed_recon": "tff_personalization.algorithms.fed_recon",
    "fed_per": "tff_personalization.algorithms.fed_per",
    "fed_rep": "tff_personalization.algorithms.fed_rep",
    "fed_prox": "tff_personalization.algorithms.fed_prox",
    "scaffold": "tff_personalization.algorithms.scaffold",
    "mime_lite": "tff_personalization.algorithms.mime_lite",
    "fed_sgd": "baselines.fed_sgd",
    "fed_avg_terms": "baselines.fed_avg_terms",
    "centralized": "baselines.centralized",
    "local_only": "baselines.local_only",
}

# How many clients are in a round and what they get done: the flags of methods whose clients take local steps.
COHORT_READS = (
    "clients_per_round",
    "client_dropout_probability",
    "straggler_probability",
    "straggler_step_fraction",
)
# What every federated method reads from the flags, the client's and the server's optimizer included.
FEDERATED_READS = ("client", "server", *COHORT_READS, "batch_size", "aggregator")


LearningProcess: TypeAlias = tff.learning.templates.LearningProcess | stateful_clients.StatefulProcess


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a method is built from.

    Attributes:
        model: the model to train.
        train_data: the train part of the clients' data.
        train_clients: the ids of the clients that train.
        settings: the values of the flags, by name.
        optimizers: the optimizer of each role, by the role's prefix.
        seed: the run's seed.
        build_model: makes the model, untrained, its initial weights drawn from a generator.
    """

    model: functional.SeededModel
    train_data: client_arrays.ClientArrays
    train_clients: tuple[str, ...]
    settings: Mapping[str, Any]
    optimizers: Mapping[str, optimizers.OptimizerSpec]
    seed: int
    build_model: Callable[[np.random.Generator], functional.SeededModel]

    def optimizer(self, role: str) -> tff.learning.optimizers.Optimizer:
        """The TFF optimizer of a role, with its schedule."""
        spec = self.optimizers[role]
        if spec.schedule == schedules.Schedule():
            return spec.build()
        if role == "client":
            return schedules.for_clients(spec.build(), spec.schedule, self.settings["rounds"])
        return schedules.for_server(spec.build(), spec.learning_rate, spec.schedule, self.settings["rounds"])

    def aggregator(self) -> tff.aggregators.WeightedAggregationFactory:
        """How the model deltas of a cohort become one, as the flags say."""
        return aggregators.from_settings(self.settings, len(self.train_clients))

    def call(self, build: Callable[..., Any], **given: Any) -> Any:
        """Calls `build` with what its parameters are named after, and with `given`, which goes before.

        `model`, `aggregator` and, for each role, `<role>_optimizer` are what the flags describe; a parameter with the
        name of a flag is that flag's value. Others keep their defaults.
        """
        for name in inspect.signature(build).parameters.keys() - given.keys():
            if name == "model":
                given[name] = self.model
            elif name == "aggregator":
                given[name] = self.aggregator()
            elif name.removesuffix("_optimizer") in self.optimizers:
                given[name] = self.optimizer(name.removesuffix("_optimizer"))
            elif name in self.settings:
                given[name] = self.settings[name]
        return build(**given)

    def training(
        self, name: str, process: LearningProcess, initial_weights: global_weights.GlobalWeights | None = None
    ) -> "Training":
        """Training in one stage, whose cohorts are drawn from the train clients."""
        start = initial_weights or global_weights.GlobalWeights.initial(self.model)
        return Training((Stage(name, 1, process),), sampled_cohorts(self), start)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A learning process and the round that it begins with; it goes on from the model that the stage before leaves.

    What clients keep, if the process is a stateful one, a stage begins afresh.
    """

    name: str
    first_round: int
    process: LearningProcess


class Cohort(NamedTuple):
    """The clients of a round that report: their ids, and the data of each, a value of `client_work.client_data_type`.

    Besides, how many of the clients that were drawn dropped out, and how many of those that report are stragglers.
    """

    members: tuple[str, ...]
    values: list[tf.data.Dataset]
    dropped: int = 0
    stragglers: int = 0


CohortFn = Callable[[int], Cohort]


@dataclasses.dataclass(frozen=True)
class Training:
    """How a global model comes about.

    Attributes:
        stages: in order of their first round; the first begins with round 1. None: the model stays untrained.
        cohort: the clients of a round, by its number.
        initial_weights: the global weights before the first round.
    """

    stages: tuple[Stage, ...]
    cohort: CohortFn
    initial_weights: global_weights.GlobalWeights

    def stage_of(self, round_number: int) -> Stage:
        """The stage that a round belongs to."""
        return [stage for stage in self.stages if stage.first_round <= round_number][-1]


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train a global model, and the strategies that follow by default.

    Attributes:
        description: what it is, in a line.
        reads: the flags that it reads besides those that every method reads; an optimizer's by its role's prefix.
        build: makes the training from a setup.
        strategies: the strategies evaluated unless `--strategies` says otherwise.
        trains: whether there are rounds at all.
        pooled: whether a round is the work of one client that holds all the data; it gets all cores.
        provides: the name of what it adds to the global weights, for strategies that need it; "" for nothing.
        check: raises UserError if flags that it reads do not fit together.
        plain_sgd: whether the client optimizer has to be SGD without momentum.
        first_stage: the method whose rounds are its own before `stage_2_round`; "" without a second stage.
    """

    description: str
    reads: tuple[str, ...]
    build: Callable[[Setup], Training]
    strategies: Sequence[str] = ("fine_tune", "fine_tune_head")
    trains: bool = True
    pooled: bool = False
    provides: str = ""
    check: Callable[[Mapping[str, Any]], None] = lambda settings: None
    plain_sgd: bool = False
    first_stage: str = ""


def get(name: str) -> Method:
    """The method with a name in `METHODS`."""
    method = METHODS[name]
    return importlib.import_module(method).METHOD if isinstance(method, str) else method


def register(name: str, method: Method) -> None:
    """Makes a method a choice of `--method`. Raises UserError if the name is taken."""
    registries.add(METHODS, "method", name, method)


def client_value(
    images: np.ndarray, labels: np.ndarray, seed: np.ndarray, round_number: int = 1, step_share: float = 1.0
) -> tf.data.Dataset:
    """One client's data in a round as a value of `client_work.client_data_type`."""
    element = collections.OrderedDict(
        x=images, y=labels, seed=seed, round=np.int32(round_number), step_share=np.float32(step_share)
    )
    return tf.data.Dataset.from_tensors(element)


def sampled_cohorts(setup: Setup) -> CohortFn:
    """Cohorts of `clients_per_round` train clients, drawn again each round uniformly and without replacement.

    A cohort is never larger than the population. Each client drops out with `client_dropout_probability`, and else is a
    straggler with `straggler_probability`, which gets `straggler_step_fraction` of its steps done before the round
    closes. If all drop out, the round waits for one of them.
    """
    size = min(setup.settings["clients_per_round"], len(setup.train_clients))
    dropout_probability = setup.settings["client_dropout_probability"]
    straggler_probability = setup.settings["straggler_probability"]

    def cohort(round_number: int) -> Cohort:
        rng = seeds.generator(setup.seed, "cohort", round_number)
        drawn = tuple(setup.train_clients[i] for i in rng.choice(len(setup.train_clients), size, replace=False))
        luck, pace = seeds.generator(setup.seed, "faults", round_number).random((2, size))
        reports = (luck >= dropout_probability) | (luck == luck.max())
        slow = pace < straggler_probability
        values = [
            client_value(
                *setup.train_data.examples(client),
                seeds.stateless(setup.seed, "local_training", round_number, client),
                round_number,
                setup.settings["straggler_step_fraction"] if is_slow else 1.0,
            )
            for client, is_slow in itertools.compress(zip(drawn, slow, strict=True), reports)
        ]
        members = tuple(itertools.compress(drawn, reports))
        return Cohort(members, values, size - len(members), int((slow & reports).sum()))

    return cohort
