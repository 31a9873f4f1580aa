"""The choice on validation clients, and the examples that a client is limited to."""

import itertools

import numpy as np
import pandas as pd
import pytest

from tff_personalization.programs import client_evaluation, final_evaluation


def table(*rows):
    return pd.DataFrame(rows, columns=["learning_rate", "strategy", "epoch", "accuracy_mean"])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0.1, "a", 0, 0.5), (0.1, "a", 1, 0.7), (0.1, "a", 2, 0.6)], 1),
        ([(0.1, "a", 5, 0.7), (0.1, "b", 0, 0.2), (0.1, "b", 2, 0.7)], 2),  # as good, in fewer epochs
        ([(0.1, "a", 2, 0.7), (0.1, "b", 2, 0.7), (0.2, "a", 2, 0.7)], 0),  # all equal: the flags' values
        ([(0.1, "a", 0, 0.8), (0.1, "a", 1, 0.7)], 0),  # keep the initial model
        ([(0.1, "a", 1, 0.7), (np.nan, "knn", 1, 0.8), (0.2, "a", 1, 0.75)], 1),
        ([(0.1, "a", 0, np.nan), (0.1, "a", 1, 0.3)], 1),
        ([(0.1, "a", 0, np.nan)], None),  # no validation client has test examples
    ],
)
def test_the_best_candidate_has_the_greatest_mean_accuracy_then_the_fewest_epochs_then_comes_first(rows, expected):
    assert final_evaluation.best_candidate(table(*rows)) == expected


def test_the_first_examples_of_a_permutation_are_nested_and_all_of_them_lie_as_they_did():
    def places(count, most, seed=3):
        return client_evaluation.first_of_permutation(count, most, np.random.default_rng(seed)).tolist()

    for count in (0, 1, 7, 40):
        chosen = [places(count, most) for most in (0, 1, 5, 20, 100)]
        assert [len(c) for c in chosen] == [min(count, most) for most in (0, 1, 5, 20, 100)]
        for fewer, more in itertools.pairwise(chosen):
            assert set(fewer) <= set(more)
        assert chosen[-1] == list(range(count))
    assert places(40, 5) == places(40, 5) != places(40, 5, seed=4)


@pytest.mark.parametrize(
    ("most", "release", "strategies", "expected"),
    [
        (50, "records", 1, 50),
        (50, "records", 3, 16),
        (50, "records", 9, 10),  # all cores have enough clients
        (4, "records", 9, 4),  # never more than the flag says
        (50, "aggregates", 9, 50),  # sums of fewer clients would say more about each
    ],
)
def test_with_many_strategies_a_call_has_fewer_clients_unless_it_only_sums(most, release, strategies, expected):
    assert client_evaluation.clients_of_a_call(most, release, strategies) == expected
