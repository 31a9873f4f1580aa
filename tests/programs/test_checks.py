"""Impossible results of methods and strategies give one line that says what was expected."""

import types

import numpy as np
import pytest

from tff_personalization import errors
from tff_personalization.algorithms import method, stateful_clients
from tff_personalization.programs import checks

SOUND = {"clients": 2, "examples": 5, "train_loss": 1.0, "train_accuracy": 1.0, "non_finite_clients": 0}


def round_of(metrics, weights=(0.0,)):
    output = types.SimpleNamespace(metrics=metrics)
    checks.check_round("mine", output, [np.array(weights, np.float32)], 3)


def test_a_sound_round_and_sound_counts_are_taken():
    round_of({"client_work": SOUND})
    checks.check_counts(["a"], np.array([[0, 5]]), 5, "of client x")
    checks.check_training("mine", method.Training((), lambda number: None, None))


@pytest.mark.parametrize(
    ("metrics", "weights", "said"),
    [
        (None, (0.0,), "no client_work with clients"),
        ({"client_work": {"clients": 2}}, (0.0,), "no client_work with examples"),
        ({"client_work": {**SOUND, "train_accuracy": 1.5}}, (0.0,), "1.5 of the predictions in training are right"),
        ({"client_work": SOUND}, (0.0, np.nan), "weights of the global model are not finite; finite ones are expected"),
        ({"client_work": SOUND}, (np.inf,), "weights of the global model are not finite"),
    ],
)
def test_a_round_that_cannot_be_is_refused(metrics, weights, said):
    with pytest.raises(errors.UserError, match=f"--method=mine, round 3: .*{said}"):
        round_of(metrics, weights)


@pytest.mark.parametrize(("row", "wrong"), [([2, 6], "6 right answers of 5 in epoch 1"), ([-1, 2], "-1 right answers")])
def test_more_right_answers_than_there_are_and_fewer_than_none_are_refused(row, wrong):
    with pytest.raises(errors.UserError, match=f"--strategies: b has {wrong}.*of client x; 0 to 5 are expected"):
        checks.check_counts(["a", "b"], np.array([[1, 2], row]), 5, "of client x")


def test_losses_that_are_not_finite_are_reported_for_each_strategy(caplog):
    losses = np.ones((2, 3, 2))
    losses[1, 2, 1] = np.nan
    checks.warn_of_losses(["a", "b", "c"], losses, 7)
    (record,) = caplog.records
    assert record.getMessage().startswith("Round 7: the loss under strategy c is not finite; a finite sum is expected")


def stages(*first):
    return tuple(method.Stage("x", number, None) for number in first)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        (None, "build gives nothing; an algorithms.method.Training is expected"),
        ([1], "build gives a list"),
        (
            stateful_clients.StatefulProcess(*[None] * 5),
            r"a StatefulProcess; .* is expected: give method.one_stage\(name, build\)",
        ),
        (method.Training(stages(2), None, None), r"begin with rounds \[2\]; 1 is expected first"),
        (method.Training(stages(1, 5, 5), None, None), r"\[1, 5, 5\]"),
    ],
)
def test_a_method_that_builds_no_training_is_refused(training, said):
    with pytest.raises(errors.UserError, match=f"--method=mine: .*{said}"):
        checks.check_training("mine", training)
