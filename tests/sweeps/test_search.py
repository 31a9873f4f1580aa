"""Points of a search."""

import numpy as np
import pytest

from tff_personalization.sweeps import search

BOUNDS = {"client_learning_rate": (0.001, 1.0), "server_learning_rate": (0.5, 2.0)}


def points(count, seed=1):
    trials = search.suggest(search.problem(BOUNDS), count, seed)
    return np.array([[trial.parameters.get_value(name) for name in BOUNDS] for trial in trials])


def test_points_lie_between_the_bounds_evenly_on_a_logarithmic_scale():
    rates = points(300)
    for column, (low, high) in zip(rates.T, BOUNDS.values(), strict=True):
        assert column.min() >= low
        assert column.max() <= high
        shares = np.log(column / low) / np.log(high / low)
        # Halton points: every tenth of the range has about a tenth of the points.
        assert np.histogram(shares, 10, (0, 1))[0] == pytest.approx(np.full(10, 30), abs=4)


def test_more_trials_keep_the_earlier_ones_and_another_seed_has_others():
    np.testing.assert_array_equal(points(20)[:7], points(7))
    assert not np.intersect1d(points(7), points(7, seed=2)).size


def test_the_best_trial_has_the_highest_objective_of_those_that_did_not_fail():
    trials = search.suggest(search.problem(BOUNDS), 4, 1)
    assert search.best(trials) is None
    for trial, measured in zip(trials, (0.5, None, 0.7, 0.7), strict=True):
        search.complete(trial, measured)
    assert search.best(trials) is trials[2]
    assert search.objective(trials[2]) == 0.7
