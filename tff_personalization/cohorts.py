"""The clients of a round: which are sampled, which report, and the data that each gets."""

import collections
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tff_personalization import seeds
from tff_personalization.settings import Group, Setting
from tff_personalization.tasks import client_arrays


class Settings(Group):
    """The settings of a cohort."""

    clients_per_round = Setting(20, "Clients in a cohort.", least=1)
    client_dropout_probability = Setting(
        0.0,
        "Probability that a sampled client does not report; at least one always does. With --aggregator=dp, ε still "
        "counts every sampled client.",
        least=0,
        most=1,
    )

    def size(self, population: int) -> int:
        """The number of clients in a cohort: `clients_per_round`, or all of a smaller population."""
        return min(self.clients_per_round, population)


class WithStragglers(Settings):
    """The settings of a cohort whose clients take several local steps."""

    straggler_probability = Setting(0.0, "Probability that a reporting client is a straggler.", least=0, most=1)
    straggler_step_fraction = Setting(
        0.5, "Share of its local steps that a straggler completes, rounded up.", least=0.001, most=1
    )


class Cohort(NamedTuple):
    """The clients of a round that report.

    Attributes:
        members: their ids.
        values: each one's data, a value of `client_work.client_data_type`.
        dropped: how many sampled clients dropped out.
        stragglers: how many of the reporting clients are stragglers.
    """

    members: tuple[str, ...]
    values: list[tf.data.Dataset]
    dropped: int = 0
    stragglers: int = 0


CohortFn = Callable[[int], Cohort]


def client_value(
    images: np.ndarray, labels: np.ndarray, seed: np.ndarray, round_number: int = 1, step_share: float = 1.0
) -> tf.data.Dataset:
    """One client's data in a round as a value of `client_work.client_data_type`."""
    element = collections.OrderedDict(
        x=images, y=labels, seed=seed, round=np.int32(round_number), step_share=np.float32(step_share)
    )
    return tf.data.Dataset.from_tensors(element)


def sampled(settings: Settings, train_data: client_arrays.ClientArrays, clients: Sequence[str], seed: int) -> CohortFn:
    """Cohorts of `clients_per_round` clients, drawn each round uniformly and without replacement.

    Each client drops out with probability `client_dropout_probability`.
    Otherwise it is a straggler with probability `straggler_probability`, and takes `straggler_step_fraction` of its
    steps before the round closes. If all drop out, the round waits for one of them.

    Args:
        settings: how cohorts are drawn.
        train_data: the train part of the clients' data.
        clients: the ids of the clients to draw from.
        seed: the run's seed.
    """
    size = settings.size(len(clients))
    straggler_probability, step_share = 0.0, 1.0
    if isinstance(settings, WithStragglers):
        straggler_probability, step_share = settings.straggler_probability, settings.straggler_step_fraction

    def cohort(round_number: int) -> Cohort:
        rng = seeds.generator(seed, "cohort", round_number)
        drawn = tuple(clients[i] for i in rng.choice(len(clients), size, replace=False))
        luck, pace = seeds.generator(seed, "faults", round_number).random((2, size))
        reports = (luck >= settings.client_dropout_probability) | (luck == luck.max())
        slow = pace < straggler_probability
        values = [
            client_value(
                *train_data.examples(client),
                seeds.stateless(seed, "local_training", round_number, client),
                round_number,
                step_share if is_slow else 1.0,
            )
            for client, is_slow in itertools.compress(zip(drawn, slow, strict=True), reports)
        ]
        members = tuple(itertools.compress(drawn, reports))
        return Cohort(members, values, size - len(members), int((slow & reports).sum()))

    return cohort
