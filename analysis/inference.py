"""Statistical inference on an effect: an interval over seeds, one over clients, and Holm's correction.

An effect is the mean over seeds of means over units (usually clients). It has two intervals:

    t           of the seeds' means, with one degree of freedom less than seeds, for the variation of seeds
    bootstrap   of units, by identity, and of seeds, both drawn with replacement, for the variation of clients; a
                client of several seeds is drawn once for all of them (the pigeonhole bootstrap of Owen, 2007)

    The interval of an effect contains both. With few seeds, the bootstrap by itself is too narrow if seeds differ, and
    t by itself is too narrow if seeds share clients. Fewer than three seeds decide nothing.

With three seeds, t is very wide after a correction for many comparisons. So where many methods have the same seeds, the
variance of seeds is pooled over methods, with seeds as blocks (`variance_of_seeds`). For two methods, this is the
paired t.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd

CONFIDENCE = 0.95
RESAMPLES = 100_000
_AT_ONCE = 1_000  # which limits memory
LEAST_SEEDS = 3
TEST = f"{CONFIDENCE:.0%} interval that holds a t interval over seeds and a bootstrap of clients by identity"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An effect and how uncertain it is.

    Attributes:
        effect: mean over seeds of means over units.
        seeds: the number of seeds.
        resampled: the effect of each resample, shape (resamples,).
        error: standard error of the mean of the seeds' means; NaN for one seed.
        freedom: the degrees of freedom of `error`.
    """

    effect: float
    seeds: int
    resampled: np.ndarray
    error: float
    freedom: int

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """The interval that contains both. For one seed, the bootstrap's, which says nothing about other seeds."""
        low, high = np.quantile(self.resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
        if self.seeds > 1:
            from scipy import stats  # Imported here, because it takes long and a single run does not need it.

            reach = stats.t.ppf((1 + confidence) / 2, self.freedom) * self.error
            low, high = min(low, self.effect - reach), max(high, self.effect + reach)
        return float(low), float(high)

    def p_above(self, bound: float) -> float:
        """Two-sided p-value of the effect being above a bound: the larger one of t and bootstrap.

        If `interval(confidence)` lies above b, then p_above(b) ≤ 1 − confidence, up to one resample.
        """
        count = len(self.resampled)
        by_bootstrap = (np.count_nonzero(self.resampled <= bound) + 1) / (count + 1)
        if self.seeds < 2:
            return min(1.0, 2 * by_bootstrap)
        from scipy import stats

        difference = self.effect - bound
        statistic = difference / self.error if self.error else np.copysign(np.inf, difference) if difference else 0.0
        return float(min(1.0, 2 * max(by_bootstrap, stats.t.sf(statistic, self.freedom))))

    def p_below(self, bound: float) -> float:
        """As `p_above`, of the effect being below a bound."""
        return dataclasses.replace(self, effect=-self.effect, resampled=-self.resampled).p_above(-bound)

    def p_within(self, margin: float) -> float:
        """As `p_above`, of the effect being within ±margin (two one-sided tests)."""
        return max(self.p_above(-margin), self.p_below(margin))


def estimate(values: Sequence[pd.Series]) -> Estimate:
    """The estimate of an effect. The same values give the same resamples.

    Args:
        values: for each seed one number per unit, indexed by the unit's name. A name in several seeds is one unit.
    """
    table = pd.concat(values, axis=1, keys=range(len(values))).sort_index()
    found, present = table.fillna(0).to_numpy(), table.notna().to_numpy(float)  # shape (units, seeds)
    units, seeds = found.shape
    drawn = np.concatenate([of_units @ np.hstack([found, present]) for of_units in _draws(units, RESAMPLES)])
    sums, counts = np.split(drawn, 2, axis=1)
    means = np.divide(sums, counts, out=np.zeros(counts.shape), where=counts > 0)
    rng = np.random.default_rng(1)
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) * (counts > 0)
    by_seed = found.sum(axis=0) / present.sum(axis=0)
    kept = weights.sum(axis=1) > 0  # a drawn seed has a drawn unit
    resampled = (weights * means).sum(axis=1)[kept] / weights.sum(axis=1)[kept]
    error = by_seed.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else np.nan
    return Estimate(float(by_seed.mean()), seeds, resampled, float(error), seeds - 1)


@functools.lru_cache(maxsize=2)  # because the effects of a table usually have the same clients
def _draws(units: int, resamples: int) -> list[np.ndarray]:
    """How often each resample draws each unit, in parts of shape (resamples at once, units)."""
    rng, parts = np.random.default_rng(0), []
    for start in range(0, resamples, _AT_ONCE):
        size = min(_AT_ONCE, resamples - start)
        drawn = rng.integers(units, size=(size, units)) + units * np.arange(size)[:, None]
        parts.append(np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.uint8))
    return parts


def variance_of_seeds(means: pd.DataFrame) -> tuple[float, int]:
    """The variance of a method's mean over seeds, without what a seed adds to all methods, and its degrees of freedom.

    It is the residual variance of a two-way analysis of variance: mean = method + seed + residual. A difference of two
    methods over n seeds then has the variance 2/n times this one. All methods are assumed to vary equally.

    Args:
        means: a row for each method, a column for each seed; NaN where a method lacks a seed.

    Returns:
        The variance, NaN without degrees of freedom, and these.
    """
    found = means.stack().dropna()
    design = np.hstack([pd.get_dummies(found.index.get_level_values(level)).to_numpy(float) for level in (0, 1)])
    fitted, _, rank, _ = np.linalg.lstsq(design, found.to_numpy(), rcond=None)
    freedom = len(found) - int(rank)
    residuals = found.to_numpy() - design @ fitted
    return (float(residuals @ residuals) / freedom if freedom else np.nan), freedom


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of a family (Holm, 1979), in the order given."""
    p, count = np.asarray(p_values, float), len(p_values)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(1, np.maximum.accumulate((count - np.arange(count)) * p[order]))
    return adjusted.tolist()
