"""A slice of the stress test of malformed input, and properties of what parses and splits."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stress import bad_input
from tff_personalization import errors
from tff_personalization.tasks import client_data, splits

IDS = st.lists(st.text(max_size=6), min_size=1, max_size=40, unique=True)


@pytest.mark.parametrize("kind", bad_input.KINDS)
def test_malformed_input_is_refused_in_one_line_or_read_correctly(kind, tmp_path):
    draw = random.Random(kind)
    for _ in range(10):
        assert bad_input.outcome(bad_input.KINDS[kind](tmp_path, draw)) in ("refused", "accepted")


def test_the_stress_test_itself_can_fail():
    def wrong():
        raise ValueError("a traceback")

    def two_lines():
        raise errors.UserError("one\ntwo")

    assert bad_input.outcome(wrong) == "ValueError: a traceback"
    assert "not one line" in bad_input.outcome(two_lines)
    assert bad_input.outcome(lambda: None) == "accepted"


@settings(deadline=None)
@given(
    ids=IDS,
    seed=st.integers(0, 2**32),
    train=st.none() | st.integers(-3, 50),
    validation=st.integers(-3, 50),
    test=st.none() | st.integers(-3, 50),
)
def test_any_split_is_of_the_numbers_asked_for_and_disjoint_or_is_refused(ids, seed, train, validation, test):
    try:
        made = splits.split_clients(ids, np.random.default_rng(seed), train, validation, test)
    except errors.UserError:
        return
    everyone = [*made.train, *made.validation, *made.test]
    assert len(set(everyone)) == len(everyone)
    assert set(everyone) <= set(ids)
    assert made.train
    assert made.test
    assert len(made.validation) == validation
    assert test is None or len(made.test) == test
    assert len(made.train) == train if train is not None else len(everyone) == len(ids)


@settings(deadline=None)
@given(
    examples=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=80),
    seed=st.integers(0, 2**32),
)
def test_a_fifth_of_each_writers_examples_is_tested(examples, seed):
    writer, label = np.array(examples).T
    is_test = client_data.split_by_writer(label, writer, np.random.default_rng(seed))
    for one in np.unique(writer):
        count, tested = (writer == one).sum(), is_test[writer == one].sum()
        assert abs(tested - count / 5) < 1
        for kind in np.unique(label[writer == one]):
            of_class = (writer == one) & (label == kind)
            assert abs(is_test[of_class].sum() - of_class.sum() / 5) <= 1
