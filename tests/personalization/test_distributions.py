"""Distributions against numbers computed by hand."""

import numpy as np
import pytest

from tff_personalization.personalization import distributions


def record(index, test_examples, correct):
    correct = np.array([correct], np.int32)
    return {
        "index": index,
        "train_examples": 10,
        "test_examples": test_examples,
        "test_predictions": test_examples,
        "correct": correct,
        "loss_sum": 0.5 * test_examples * np.ones_like(correct, np.float32),
    }


@pytest.fixture
def table():
    """Four clients, accuracy before → after: 2/4 → 3/4, 5/10 → 4/10, 1/2 → 1/2, and one with nothing to test on."""
    records = [record(1, 10, [5, 4]), record(0, 4, [2, 3]), record(2, 2, [1, 1]), record(3, 0, [0, 0])]
    return distributions.client_table(records, ["a", "b", "c", "d"], ["fine_tune"])


def test_the_table_has_a_row_for_each_client_strategy_and_epoch_in_order(table):
    assert table.client.tolist() == ["a", "a", "b", "b", "c", "c", "d", "d"]
    assert table.epoch.tolist() == [0, 1] * 4
    assert table.accuracy.tolist()[:6] == [0.5, 0.75, 0.5, 0.4, 0.5, 0.5]
    assert table.correct.tolist() == [2, 3, 5, 4, 1, 1, 0, 0]
    assert table.accuracy.isna().tolist() == [False] * 6 + [True] * 2
    assert table.loss.tolist()[:6] == [0.5] * 6


def test_means_gains_and_shares(table):
    after = distributions.from_table(table, "fine_tune", 1, 10)
    assert after.clients == 3
    assert after.mean == pytest.approx((0.75 + 0.4 + 0.5) / 3)
    assert after.weighted_mean == pytest.approx((3 + 4 + 1) / 16)
    assert after.gain == pytest.approx((0.25 - 0.1 + 0) / 3)
    assert (after.share_gaining, after.share_hurt) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert after.share_unchanged == pytest.approx(1 / 3)
    assert after.sd == pytest.approx(np.std([0.75, 0.4, 0.5]))
    assert after.quantiles[0.5] == 0.5


def test_histogram_cells_are_exact_at_their_edges():
    """k/10 is in bin k for every k, and 1 is in the last, despite floating-point rounding."""
    records = [record(k, 10, [k]) for k in range(11)]
    table = distributions.client_table(records, [str(k) for k in range(11)], ["fine_tune"])
    histogram = distributions.from_table(table, "fine_tune", 0, 10).histogram
    assert histogram.tolist() == [1] * 9 + [2]


@pytest.mark.parametrize("quantile", [0.05, 0.25, 0.5, 0.75, 0.95])
def test_quantiles_of_a_histogram_are_right_to_the_width_of_a_bin(quantile):
    values = np.random.default_rng(0).beta(8, 2, 2000)
    histogram = np.histogram(values, bins=100, range=(0, 1))[0]
    read = distributions.quantile_of_histogram(histogram, quantile)
    assert read == pytest.approx(np.quantile(values, quantile), abs=0.01)


def test_quantiles_skip_empty_bins():
    histogram = np.zeros(10, int)
    histogram[[2, 7]] = 1
    assert 0.2 <= distributions.quantile_of_histogram(histogram, 0.4) <= 0.3
    assert 0.7 <= distributions.quantile_of_histogram(histogram, 0.6) <= 0.8


def test_no_clients_give_no_number():
    table = distributions.client_table([record(0, 0, [0])], ["a"], ["fine_tune"])
    empty = distributions.from_table(table, "fine_tune", 0, 10)
    assert empty.clients == 0
    assert np.isnan(empty.mean)
    assert empty.histogram.sum() == 0
