"""How a cohort's model deltas become one: the choices of `--aggregator`. Adding one is one line in `AGGREGATORS`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow_federated as tff

# The flags that choose and tune an aggregator.
READS = ("aggregator", "dp_noise_multiplier")


@dataclasses.dataclass(frozen=True)
class Aggregator:
    """A way to aggregate.

    Attributes:
        description: what it is, for help.
        build: from the settings and the number of clients in a cohort to TFF's factory.
    """

    description: str
    build: Callable[[Mapping[str, Any], int], tff.aggregators.WeightedAggregationFactory]


def _differentially_private(settings, clients_per_round):
    factory = tff.learning.dp_aggregator(settings["dp_noise_multiplier"], clients_per_round)
    return tff.aggregators.as_weighted_aggregator(factory)


AGGREGATORS = {
    "mean": Aggregator("the weighted mean", lambda *_: tff.aggregators.MeanFactory()),
    "robust": Aggregator(
        "the weighted mean, very large deltas zeroed and large ones clipped, both by norms learnt along the way",
        lambda *_: tff.learning.robust_aggregator(),
    ),
    "compression": Aggregator(
        "as robust, deltas sent compressed (lossy)", lambda *_: tff.learning.compression_aggregator()
    ),
    "dp": Aggregator(
        "differentially private: the unweighted mean of clipped deltas with Gaussian noise", _differentially_private
    ),
    "secure_sum": Aggregator("as robust, through secure summation", lambda *_: tff.learning.secure_aggregator()),
}


def from_settings(settings: Mapping[str, Any], population: int) -> tff.aggregators.WeightedAggregationFactory:
    """The aggregator that the flags name, for cohorts drawn from `population` clients."""
    return AGGREGATORS[settings["aggregator"]].build(settings, min(settings["clients_per_round"], population))
