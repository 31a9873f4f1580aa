"""Inference on effects: closed forms, known p-values, and how often the interval contains a known effect."""

import types
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import compare_methods, inference


def _values(seeds, clients=None):
    """A seed's numbers by client. All seeds have the same clients, unless the names differ."""
    return [pd.Series(of_seed, clients or range(len(of_seed))) for of_seed in seeds]


def test_the_interval_of_many_clients_of_one_seed_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(0.02, 0.1, 400)
    low, high = inference.estimate(_values([values])).interval()
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_where_no_client_differs_the_interval_is_that_of_t_over_seeds():
    means = [0.01, 0.02, 0.06]
    found = inference.estimate(_values([[mean] * 5 for mean in means]))
    expected = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    assert found.interval() == pytest.approx(expected)
    assert found.p_above(0) == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert found.p_below(0.2) == pytest.approx(stats.ttest_1samp(means, 0.2).pvalue)
    assert found.p_within(0.2) == pytest.approx(found.p_below(0.2))


def test_the_variance_of_seeds_of_two_methods_is_that_of_the_paired_t():
    one, other = np.random.default_rng(1).normal(size=(2, 6))
    variance, freedom = inference.variance_of_seeds(pd.DataFrame([one, other]))
    assert freedom == 5
    assert np.sqrt(2 * variance / 6) == pytest.approx(stats.sem(one - other))


def test_the_variance_of_seeds_is_that_of_a_two_way_analysis_of_variance():
    means = np.random.default_rng(1).normal(size=(5, 4))
    residuals = means - means.mean(1, keepdims=True) - means.mean(0) + means.mean()
    assert inference.variance_of_seeds(pd.DataFrame(means)) == pytest.approx(((residuals**2).sum() / 12, 12))
    # A method with only one seed says nothing; what a seed adds to all methods does not count.
    more = pd.DataFrame(np.vstack([means + np.array([0, 5, -5, 1]), [7, np.nan, np.nan, np.nan]]))
    assert inference.variance_of_seeds(more) == pytest.approx(((residuals**2).sum() / 12, 12))
    assert inference.variance_of_seeds(pd.DataFrame([[1.0, 2.0]]))[1] == 0


def test_a_client_that_all_seeds_have_is_one_unit():
    # Four seeds of the same clients say no more about clients than one; four seeds of other clients do.
    of_one = np.random.default_rng(1).normal(0.02, 0.1, 100)
    one = inference.estimate(_values([of_one])).interval()
    same = inference.estimate(_values([of_one] * 4)).interval()
    assert np.diff(same) == pytest.approx(np.diff(one), rel=0.05)
    names = [[f"{seed}_{number}" for number in range(100)] for seed in range(4)]
    own = inference.estimate([pd.Series(of_one, of) for of in names]).interval()
    assert np.diff(own) < 0.75 * np.diff(one)


def test_an_interval_above_0_is_one_whose_p_value_is_below_its_level():
    rng = np.random.default_rng(1)
    for shift in np.linspace(0, 0.05, 8):
        found = inference.estimate(_values(rng.normal(shift, 0.05, (3, 40))))
        low, high = found.interval()
        assert (low > 0) == (found.p_above(0) < 0.05)
        assert (high < 0.03) == (found.p_below(0.03) < 0.05)


def test_a_seed_whose_clients_are_not_drawn_does_not_count():
    found = inference.estimate([pd.Series({"a": 0.1}), pd.Series({"b": 0.3})])
    assert found.effect == pytest.approx(0.2)
    assert found.resampled.min() == pytest.approx(0.1)
    assert found.resampled.max() == pytest.approx(0.3)


def test_holms_p_values_are_those_of_a_worked_example():
    assert inference.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert inference.holm([0.9, 0.6]) == [1, 1]
    assert inference.holm([]) == []


def _nested(values, rng):
    """A bootstrap of seeds, and of each seed's clients separately. It is too narrow."""
    seeds, clients = values.shape
    drawn = rng.integers(seeds, size=(RESAMPLES, seeds))
    places = rng.integers(clients, size=(RESAMPLES, seeds, clients))
    low, high = np.quantile(values[drawn[:, :, None], places].mean(axis=(1, 2)), [0.025, 0.975])
    return low, high


EFFECT, CLIENTS, RESAMPLES, TIMES = 0.02, 67, 300, 100
KINDS = {"own clients": (0.0, 0.08), "shared clients": (0.06, 0.05)}  # of clients, and of a client's seeds


def coverage(seeds, kind, deviation, times=TIMES):
    """How often the interval, and a nested bootstrap's, contain the effect; `deviation` is the effect's over seeds."""
    rng, (of_clients, within) = np.random.default_rng(7), KINDS[kind]
    held = np.zeros(2)
    for _ in range(times):
        values = EFFECT + deviation * rng.normal(size=(seeds, 1)) + of_clients * rng.normal(size=CLIENTS)
        values = values + within * rng.normal(size=(seeds, CLIENTS))
        names = [range(CLIENTS) if of_clients else range(s * CLIENTS, (s + 1) * CLIENTS) for s in range(seeds)]
        found = inference.estimate([pd.Series(of, name) for of, name in zip(values, names, strict=True)])
        held += [low <= EFFECT <= high for low, high in (found.interval(), _nested(values, rng))]
    return held / times


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seeds", "deviation"), [(3, 0.0), (3, 0.05), (6, 0.02)])
def test_the_interval_holds_a_known_effect_as_often_as_it_says(monkeypatch, seeds, kind, deviation):
    monkeypatch.setattr(inference, "RESAMPLES", RESAMPLES)
    held, nested = coverage(seeds, kind, deviation)
    assert held >= 0.91
    assert held >= nested - 0.01


SPREADS = {  # of methods' deviations over seeds, and of the reference's
    "all methods vary equally": (0.0, 1),
    "methods vary unequally": (0.4, 1),
    "the reference varies twice as much": (0.2, 2),
    "a seed diverged": (0.2, 1),
}


def _of_methods(deviations, rng, seeds, clients):
    """Accuracies of shape (methods, seeds, clients), whose means do not differ."""
    methods = len(deviations)
    values = deviations * rng.normal(size=(methods, seeds, 1)) + 0.01 * rng.normal(size=(1, seeds, 1))
    values = values + 0.04 * rng.normal(size=(methods, 1, clients)) + 0.1 * rng.normal(size=clients)
    return values + 0.05 * rng.normal(size=(methods, seeds, clients))


def _row(of_method, of_reference):
    return {
        "first": types.SimpleNamespace(summary={"strategy": "fine_tune"}),
        "strategy": "fine_tune",
        "seeds": len(of_method),
        "estimate": inference.estimate(_values(of_method - of_reference)),
        "means": dict(enumerate(of_method.mean(axis=1))),
    }


def coverage_of_one(factor, times, methods=24, seeds=3, clients=80):
    """The intervals of one method that varies `factor` times as much over seeds as all others. No method differs.

    Returns:
        The shares of them that contain 0, and, after Bonferroni's correction, that do not.
    """
    rng = np.random.default_rng(3)
    deviations = np.full((methods, 1, 1), 0.005)
    deviations[1] *= factor
    held = []
    for _ in range(times):
        values = _of_methods(deviations, rng, seeds, clients)
        with mock.patch.object(inference, "RESAMPLES", 2):  # the others' intervals are not used
            reference, _, *others = [_row(of_method, values[0]) for of_method in values]
        one = _row(values[1], values[0])
        compare_methods._pool_variance(reference, [one, *others])
        held.append([one["estimate"].interval(level) for level in (0.95, 1 - 0.05 / (methods - 1))])
    contain = (np.array(held)[:, :, 0] <= 0) & (np.array(held)[:, :, 1] >= 0)
    return contain[:, 0].mean(), 1 - contain[:, 1].mean()


def coverage_of_many(kind, times, methods=24, seeds=3, clients=80):
    """How often intervals contain 0 where no method differs, and half of their width after Bonferroni's correction.

    Returns:
        Both, with the variance of seeds pooled and with each row's own.
    """
    rng, (unequal, of_reference) = np.random.default_rng(3), SPREADS[kind]
    held, widths = [], []
    for _ in range(times):
        deviations = 0.005 * np.exp(unequal * rng.normal(size=(methods, 1, 1)))
        deviations[0] *= of_reference
        values = _of_methods(deviations, rng, seeds, clients)
        values[1, 0] -= 0.8 if kind == "a seed diverged" else 0
        reference, *rows = [_row(of_method, values[0]) for of_method in values]
        own = [row["estimate"] for row in rows]
        compare_methods._pool_variance(reference, rows)
        first = int(kind == "a seed diverged")  # whose effect is not 0
        for estimates in ([row["estimate"] for row in rows][first:], own[first:]):
            intervals = np.array([one.interval() for one in estimates])
            corrected = np.array([one.interval(1 - 0.05 / len(estimates)) for one in estimates])
            held.append(((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)).mean())
            widths.append(np.median(np.diff(corrected)) / 2)
    return np.mean(held[::2]), np.mean(held[1::2]), np.mean(widths[::2]), np.mean(widths[1::2])


@pytest.mark.parametrize("kind", SPREADS)
def test_the_interval_with_pooled_variance_holds_no_effect_as_often_as_it_says(monkeypatch, kind):
    monkeypatch.setattr(inference, "RESAMPLES", 200)
    pooled, own, width, own_width = coverage_of_many(kind, times=8, methods=12)
    assert 0.91 <= pooled <= own
    assert width < own_width / 2


def test_a_method_that_varies_far_more_than_the_others_is_rarely_judged_wrongly(monkeypatch):
    monkeypatch.setattr(inference, "RESAMPLES", 200)
    held, wrong = coverage_of_one(6, times=40)
    assert held >= 0.85
    assert wrong <= 0.1


if __name__ == "__main__":  # the tables of docs/verdicts.md
    inference.RESAMPLES = RESAMPLES = 500
    for kind in SPREADS:
        print(kind, *(f"{value:.3f}" for value in coverage_of_many(kind, 50)), flush=True)
    for factor in (1, 2, 4, 8):
        print(factor, *(f"{value:.3f}" for value in coverage_of_one(factor, 400)), flush=True)
    for seeds in (3, 6):
        for kind in KINDS:
            for deviation in (0, 0.01, 0.02, 0.05):
                held, nested = coverage(seeds, kind, deviation, 400)
                print(f"{seeds} {kind:<16} {deviation:<5} {held:.3f}, nested {nested:.3f}", flush=True)
