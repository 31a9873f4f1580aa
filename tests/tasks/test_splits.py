"""Train, validation and test clients."""

import numpy as np
import pytest

from tff_personalization import errors
from tff_personalization.tasks import splits

IDS = [f"c{i}" for i in range(34)]


def split(seed=0, **numbers):
    return splits.split_clients(IDS, np.random.default_rng(seed), **numbers)


@pytest.mark.parametrize("numbers", [{}, {"test_clients": 10, "validation_clients": 4, "train_clients": 7}])
def test_no_client_is_in_two_parts(numbers):
    parts = split(**numbers)
    everyone = [*parts.train, *parts.validation, *parts.test]
    assert len(set(everyone)) == len(everyone)
    assert set(everyone) <= set(IDS)


def test_the_numbers_are_those_asked_for():
    parts = split(test_clients=10, validation_clients=4, train_clients=7)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [7, 4, 10]


def test_the_default_is_the_papers_share():
    ids = [f"f{i}" for i in range(3400)]
    parts = splits.split_clients(ids, np.random.default_rng(0))
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [2500, 0, 900]


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_ids():
    assert split(seed=1) == splits.split_clients(IDS[::-1], np.random.default_rng(1))
    assert split(seed=1) != split(seed=2)


def test_validation_clients_are_taken_from_those_that_would_train():
    without, with_validation = split(test_clients=10), split(test_clients=10, validation_clients=4)
    assert with_validation.test == without.test
    assert with_validation.validation + with_validation.train == without.train


@pytest.mark.parametrize(
    ("numbers", "flag"),
    [
        ({"test_clients": 34}, "--test_clients=34: .* fewer than 34"),
        ({"test_clients": 5, "validation_clients": 29}, "--validation_clients=29"),
        ({"test_clients": 30, "train_clients": 5}, "--train_clients=5"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(numbers, flag):
    with pytest.raises(errors.UserError, match=flag):
        split(**numbers)


def test_overlapping_parts_cannot_be_made():
    with pytest.raises(ValueError, match="overlap"):
        splits.ClientSplit(("a", "b"), (), ("b",))


def test_held_out_clients_test_and_no_others():
    ids = [f"c{i}" for i in range(20)]
    split = splits.split_clients(ids, np.random.default_rng(0), held_out=("c3", "c7"), validation_clients=2)
    assert set(split.test) == {"c3", "c7"}
    assert (len(split.validation), len(split.train)) == (2, 16)
    fewer = splits.split_clients(ids, np.random.default_rng(0), held_out=("c3", "c7"), test_clients=1)
    assert set(fewer.test) < {"c3", "c7"}
    assert not {"c3", "c7"} & set(fewer.train)


def test_named_train_clients_leave_the_others_to_test():
    ids = [f"c{i}" for i in range(6)]
    split = splits.split_clients(ids, np.random.default_rng(0), may_train=("c1", "c2"))
    assert (set(split.train), set(split.test)) == ({"c1", "c2"}, {"c0", "c3", "c4", "c5"})


def test_a_client_that_is_named_for_both_is_refused():
    with pytest.raises(errors.UserError, match="'c1' is held out"):
        splits.split_clients(["c1", "c2"], np.random.default_rng(0), held_out=("c1",), may_train=("c1", "c2"))
