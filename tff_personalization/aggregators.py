"""How a cohort's model deltas become one: the choices of `--aggregator`. Adding one is one line in `AGGREGATORS`.

All but the plain mean learn bounds on the norm of a model delta along the way (Andrew et al., 2021, arXiv 1905.03871).
A client whose delta is not finite sends zeros of weight 0 (`algorithms/client_work.py`). The sums of secure_sum are
taken in the clear in simulation, over the bounded integers that clients would mask.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow_federated as tff

from tff_personalization import registries

_CLIPPED_COUNT_NOISE = 0.05  # TFF's default, as a share of the cohort


@dataclasses.dataclass(frozen=True)
class Aggregator:
    """A way to aggregate.

    Attributes:
        description: what it is, for help.
        build: from the settings and the number of clients in a cohort to TFF's factory.
        reads: the flags that it reads.
        weighted: whether clients' weights count. Without, a method's clients weigh alike.
    """

    description: str
    build: Callable[[Mapping[str, Any], int], tff.aggregators.WeightedAggregationFactory]
    reads: tuple[str, ...] = ()
    weighted: bool = True


def differentially_private(noise_multiplier: float, clients_per_round: int) -> tff.aggregators.AggregationFactory:
    """DP-FedAvg's mean: Σ clipped deltas + noise, over M (McMahan et al., 2018, arXiv 1710.06963, Algorithm 1).

    The clipping norm C is learnt from a noised count of clipped deltas (Andrew et al., 2021). `noise_multiplier` z is
    that of sum and count together: with standard deviation b of the count's noise, the sum's is C (z⁻² − (2b)⁻²)^−½.
    Deltas are not zeroed by a learnt norm, as in `tff.learning.dp_aggregator`, which learns that norm without noise.

    Args:
        noise_multiplier: z ≥ 0.
        clients_per_round: M, by which the sum is divided however many clients sent something.
    """
    # TFF's choice of b is too small for z in cohorts of fewer than 10 z clients: (2b)⁻² < z⁻² must hold.
    count_noise = max(_CLIPPED_COUNT_NOISE * clients_per_round, noise_multiplier) if noise_multiplier else 0.0
    return tff.aggregators.DifferentiallyPrivateFactory.gaussian_adaptive(
        noise_multiplier, float(clients_per_round), clipped_count_stddev=count_noise
    )


def _dp(settings: Mapping[str, Any], clients_per_round: int) -> tff.aggregators.WeightedAggregationFactory:
    factory = differentially_private(settings["dp_noise_multiplier"], clients_per_round)
    return tff.aggregators.as_weighted_aggregator(factory)


AGGREGATORS = {
    "mean": Aggregator("the weighted mean", lambda *_: tff.aggregators.MeanFactory()),
    "robust": Aggregator(
        "the weighted mean, very large deltas zeroed and large ones clipped, both by norms learnt along the way",
        lambda *_: tff.learning.robust_aggregator(),
    ),
    "compression": Aggregator(
        "as robust, tensors of more than 20,000 weights sent in 8 bits a weight",
        lambda *_: tff.learning.compression_aggregator(),
    ),
    "dp": Aggregator(
        "differentially private: the unweighted mean of clipped deltas with Gaussian noise",
        _dp,
        reads=("dp_noise_multiplier", "dp_delta"),
        weighted=False,
    ),
    "secure_sum": Aggregator(
        "as robust, through secure summation of bounded integers", lambda *_: tff.learning.secure_aggregator()
    ),
}


def register(name: str, aggregator: Aggregator) -> None:
    """Makes an aggregator a choice of `--aggregator`. Raises UserError if the name is taken."""
    registries.add(AGGREGATORS, "aggregator", name, aggregator)


def from_settings(settings: Mapping[str, Any], population: int) -> tff.aggregators.WeightedAggregationFactory:
    """The aggregator that the flags name, for cohorts drawn from `population` clients."""
    return AGGREGATORS[settings["aggregator"]].build(settings, min(settings["clients_per_round"], population))
