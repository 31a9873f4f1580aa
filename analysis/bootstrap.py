"""Percentile bootstrap over clients nested in seeds: what every interval of the analysis is."""

from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000


def interval(
    values: Sequence[np.ndarray], rng: np.random.Generator, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over seeds of means over clients, clients nested in seeds.

    Args:
        values: for each seed, one number per client, shape (clients,).
        rng: draws the resamples.
        confidence: the share of the resampled means that the interval holds.
    """
    seeds = len(values)
    drawn = rng.integers(seeds, size=(RESAMPLES, seeds))
    means = np.empty(drawn.shape)
    for seed, of_seed in enumerate(values):
        here = drawn == seed
        places = rng.integers(len(of_seed), size=(np.count_nonzero(here), len(of_seed)))
        means[here] = of_seed[places].mean(axis=1)
    low, high = np.quantile(means.mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
