"""The bootstrap interval against a closed form, and with seeds that differ."""

import numpy as np
import pytest

from analysis import bootstrap


def test_interval_of_many_clients_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(0.02, 0.1, 2000)
    low, high = bootstrap.interval([values], np.random.default_rng(2))
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_interval_holds_how_seeds_differ():
    # No client differs from another: the mean of 2 seeds drawn with replacement is 0, ½ or 1, each end a quarter.
    low, high = bootstrap.interval([np.zeros(5), np.ones(9)], np.random.default_rng(3))
    assert (low, high) == (0.0, 1.0)
    drawn = bootstrap.interval([np.zeros(5), np.ones(9)], np.random.default_rng(3), confidence=0.4)
    assert drawn == (0.5, 0.5)
