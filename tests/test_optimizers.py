"""Optimizers by name, and the flags of a role."""

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from tff_personalization import errors, optimizers, schedules
from tff_personalization.experiment import config

ROLE = optimizers.Role("server", "does things", "sgd", {"sgd": 1.0, "adam": 0.001}, {"momentum": 0.9}, scheduled=True)


def parse(*arguments):
    values = flags.FlagValues()
    for name, setting in ROLE.flags().items():
        config.define_flag(name, setting, values)
    values(["program", *arguments])
    given = [name for name in ROLE.flags() if not values[name].using_default_value]
    return ROLE.of({name: values[name].value for name in ROLE.flags()}, given)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_lowers_a_quadratic(name):
    optimizer = optimizers.OptimizerSpec(name, 0.1).build()
    weights = tf.constant([3.0, -2.0])
    state = optimizer.initialize(tf.TensorSpec([2]))
    for _ in range(50):
        state, weights = optimizer.next(state, weights, 2 * weights)
    assert np.sum(weights.numpy() ** 2) < 0.9 * 13


def test_the_default_is_the_roles():
    assert parse() == optimizers.OptimizerSpec("sgd", 1.0, {"momentum": 0.9})


def test_another_optimizer_has_its_own_default_rate_and_options():
    spec = parse("--server_optimizer=adam", "--server_adam_beta_1=0.5")
    assert (spec.name, spec.learning_rate, spec.options["beta_1"]) == ("adam", 0.001, 0.5)
    assert "momentum" not in spec.options


def test_options_reach_the_optimizer():
    weights, gradient = tf.constant([1.0]), tf.constant([1.0])
    optimizer = parse("--server_sgd_momentum=0.5", "--server_learning_rate=0.1").build()
    state = optimizer.initialize(tf.TensorSpec([1]))
    state, weights = optimizer.next(state, weights, gradient)
    state, weights = optimizer.next(state, weights, gradient)
    assert weights.numpy()[0] == pytest.approx(1 - 0.1 * 1 - 0.1 * 1.5)


def test_the_schedule_is_the_flags():
    spec = parse(
        "--server_learning_rate_schedule=exponential",
        "--server_learning_rate_decay=0.9",
        "--server_learning_rate_warmup_rounds=3",
    )
    assert spec.schedule == schedules.Schedule("exponential", 0.9, 3)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--server_adam_beta_1=0.5"], ["--server_adam_beta_1", "--server_optimizer=adam"]),
        (["--server_optimizer=yogi"], ["--server_learning_rate", "yogi"]),
        (["--server_learning_rate=0"], ["--server_learning_rate=0", "positive"]),
        (["--server_learning_rate=inf"], ["--server_learning_rate=inf", "finite"]),
        (["--server_sgd_momentum=1.5"], ["--server_sgd_momentum=1.5"]),
        (["--server_optimizer=adam", "--server_adam_beta_2=-1"], ["--server_adam_beta_2=-1"]),
        (["--server_learning_rate_decay=0.9"], ["--server_learning_rate_decay", "=constant", "=exponential"]),
        (["--server_learning_rate_schedule=exponential"], ["--server_learning_rate_decay is needed"]),
        (
            ["--server_learning_rate_schedule=exponential", "--server_learning_rate_decay=1.1"],
            ["--server_learning_rate_decay=1.1", "(0, 1]"],
        ),
    ],
    ids=lambda value: value[0],
)
def test_what_the_chosen_optimizer_does_not_take_is_refused_by_flag(arguments, names):
    with pytest.raises(errors.UserError) as refusal:
        parse(*arguments)
    assert all(name in str(refusal.value) for name in names)
    assert "\n" not in str(refusal.value)
