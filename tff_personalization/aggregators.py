"""Aggregation of a cohort's model deltas: the choices of `--aggregator`. Adding one is one line in `AGGREGATORS`.

All except the plain mean learn bounds on the norm of a model delta during training (Andrew et al., 2021, arXiv
1905.03871). A client whose delta is not finite sends zeros with weight 0 (`algorithms/client_work.py`). In simulation,
secure_sum adds the bounded integers that clients would mask, without masks.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow_federated as tff

from tff_personalization import errors, registries
from tff_personalization.settings import Group, OpenChoices, Setting, listing

_CLIPPED_COUNT_NOISE = 0.05  # TFF's default, as a fraction of the cohort


class DifferentialPrivacy(Group):
    """The settings of `dp`."""

    dp_noise_multiplier = Setting(
        1.0,
        "z of --aggregator=dp: one noise multiplier for two sums, that of the deltas and the count that adapts the "
        "clipping norm C. With M clients a round, the noise of the mean delta has standard deviation 1.15 z C / M if "
        "M is at most 20 z, and between that and z C / M if M is larger.",
        least=0,
    )
    dp_delta: Setting[float | None] = Setting(
        None,
        "δ of the reported (ε, δ) with --aggregator=dp. Default: N^-1.1 for N train clients.",
        kind=float,
        least=1e-300,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class Aggregator:
    """A way to aggregate.

    Attributes:
        description: what it is, for help.
        build: makes TFF's factory from its settings and the number of clients in a cohort.
        settings: the group of settings that it reads.
        weighted: whether it uses clients' weights. If not, all clients count equally.
        mean: whether the aggregate is a weighted mean of the clients' deltas after each was transformed by itself.
    """

    description: str
    build: Callable[[Any, int], tff.aggregators.WeightedAggregationFactory]
    settings: type[Group] = Group
    weighted: bool = True
    mean: bool = False


def differentially_private(noise_multiplier: float, clients_per_round: int) -> tff.aggregators.AggregationFactory:
    """DP-FedAvg's mean: Σ clipped deltas + noise, over M (McMahan et al., 2018, arXiv 1710.06963, Algorithm 1).

    The clipping norm C is learnt from a noised count of clipped deltas (Andrew et al., 2021). `noise_multiplier` z is
    that of sum and count together: if the count's noise has standard deviation b, the sum's noise has C (z⁻² −
    (2b)⁻²)^−½. Unlike `tff.learning.dp_aggregator`, it does not zero deltas by a learnt norm, because TFF learns that
    norm without noise.

    Args:
        noise_multiplier: z ≥ 0.
        clients_per_round: M, the divisor of the sum, whatever the number of clients that report.
    """
    # TFF's choice of b is too small for z in cohorts of fewer than 10 z clients: (2b)⁻² < z⁻² must hold.
    count_noise = max(_CLIPPED_COUNT_NOISE * clients_per_round, noise_multiplier) if noise_multiplier else 0.0
    return tff.aggregators.DifferentiallyPrivateFactory.gaussian_adaptive(
        noise_multiplier, float(clients_per_round), clipped_count_stddev=count_noise
    )


def _dp(settings: DifferentialPrivacy, clients_per_round: int) -> tff.aggregators.WeightedAggregationFactory:
    factory = differentially_private(settings.dp_noise_multiplier, clients_per_round)
    return tff.aggregators.as_weighted_aggregator(factory)


AGGREGATORS: OpenChoices[Aggregator] = OpenChoices(
    {
        "mean": Aggregator("the weighted mean", lambda *_: tff.aggregators.MeanFactory(), mean=True),
        "robust": Aggregator(
            "the weighted mean; it zeroes very large deltas and clips large ones, at norms that it adapts in training",
            lambda *_: tff.learning.robust_aggregator(),
            mean=True,
        ),
        "compression": Aggregator(
            "as robust, with 8 bits per weight for tensors of more than 20,000 weights",
            lambda *_: tff.learning.compression_aggregator(),
            mean=True,
        ),
        "dp": Aggregator(
            "differentially private: the unweighted mean of clipped deltas with Gaussian noise",
            _dp,
            settings=DifferentialPrivacy,
            weighted=False,
        ),
        "secure_sum": Aggregator(
            "as robust, through secure summation of bounded integers",
            lambda *_: tff.learning.secure_aggregator(),
            mean=True,
        ),
    }
)


def register(name: str, aggregator: Aggregator) -> None:
    """Makes an aggregator a choice of `--aggregator`. Raises UserError if the name is taken."""
    registries.add(AGGREGATORS, "aggregator", name, aggregator, Aggregator)


class _Checked(tff.aggregators.WeightedAggregationFactory):
    """A factory whose processes are checked: what they make of deltas must be a delta."""

    def __init__(self, name: str, factory: tff.aggregators.WeightedAggregationFactory):
        self._name = name
        self._factory = factory

    def create(self, value_type: tff.Type, weight_type: tff.Type) -> tff.templates.AggregationProcess:
        process = self._factory.create(value_type, weight_type)
        if not isinstance(process, tff.templates.AggregationProcess):
            raise errors.UserError(
                f"--aggregator={self._name}: its factory creates {errors.described(process)}; a "
                "tff.templates.AggregationProcess is expected."
            )
        made = process.next.type_signature.result.result.member
        if not value_type.is_assignable_from(made):
            raise errors.UserError(
                f"--aggregator={self._name}: it makes {made.compact_representation()} of the clients' deltas; "
                f"{value_type.compact_representation()}, the type of one delta, is expected."
            )
        return process


def build(name: str, settings: Group, clients_per_round: int) -> tff.aggregators.WeightedAggregationFactory:
    """The factory of an aggregator by its name.

    Raises:
        UserError: it is none; or, when it creates a process, that does not make a delta of deltas.
    """
    factory = AGGREGATORS[name].build(settings, clients_per_round)
    if not isinstance(factory, tff.aggregators.WeightedAggregationFactory):
        unweighted = isinstance(factory, tff.aggregators.UnweightedAggregationFactory)
        hint = ": wrap it in tff.aggregators.as_weighted_aggregator" if unweighted else ""
        raise errors.UserError(
            f"--aggregator={name}: it builds {errors.described(factory)}; a "
            f"tff.aggregators.WeightedAggregationFactory is expected{hint}."
        )
    return _Checked(name, factory)


AGGREGATOR = Setting(
    "mean",
    listing("How the model deltas of a cohort are combined.", lambda: AGGREGATORS),
    choices=AGGREGATORS,
)
