"""Learning rates by round, against their formulas, at the server and at the clients."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests import numpy_oracle, setups
from tff_personalization import cohorts, optimizers, schedules
from tff_personalization.algorithms import fed_avg
from tff_personalization.models import emnist_cnn

ROUNDS = 20


def factors(schedule):
    return [float(schedule.factor(t, ROUNDS)) for t in range(1, ROUNDS + 1)]


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (schedules.Schedule(), lambda t: 1),
        (schedules.Schedule(warmup_rounds=4), lambda t: min(1, t / 4)),
        (schedules.Schedule("exponential", 0.9), lambda t: 0.9 ** (t - 1)),
        (schedules.Schedule("exponential", 0.9, 3), lambda t: 0.9 ** (t - 1) * min(1, t / 3)),
        (schedules.Schedule("inverse_sqrt"), lambda t: t**-0.5),
        (schedules.Schedule("inverse_sqrt", warmup_rounds=5), lambda t: t / 5 if t < 5 else math.sqrt(5 / t)),
        (schedules.Schedule("cosine"), lambda t: (1 + math.cos(math.pi * (t - 1) / ROUNDS)) / 2),
    ],
    ids=range(7),
)
def test_factors_are_those_of_the_formula(schedule, formula):
    np.testing.assert_allclose(factors(schedule), [formula(t) for t in range(1, ROUNDS + 1)], rtol=1e-5)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_the_server_takes_its_step_of_a_round_at_the_rounds_rate(name):
    schedule = schedules.Schedule("exponential", 0.5, 2)
    plain = optimizers.OptimizerSpec(name, 0.1)
    scheduled = schedules.for_server(plain.build(), 0.1, schedule, ROUNDS)
    weights = tf.constant([3.0, -2.0])
    state = scheduled.initialize(tf.TensorSpec([2]))
    expected_state = plain.build().initialize(tf.TensorSpec([2]))
    for t in range(1, 5):
        expected_state["learning_rate"] = 0.1 * 0.5 ** (t - 1) * min(1, t / 2)
        expected_state, expected = plain.build().next(expected_state, weights, weights**2)
        state, weights = scheduled.next(state, weights, weights**2)
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


@pytest.mark.usefixtures("worker")
def test_clients_train_at_the_rate_of_the_round_that_comes_with_their_data():
    model = emnist_cnn.build_linear(3, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (6, 28, 28), np.uint8), rng.integers(0, 3, 6, np.int32)
    schedule = schedules.Schedule("cosine", warmup_rounds=2)
    client = optimizers.OptimizerSpec("sgd", 0.1, {}, schedule)
    process = fed_avg.build_fed_avg(setups.setup(fed_avg, model, client=client, local_epochs=2, rounds=ROUNDS))
    seed = np.array([1, 2], np.int32)
    for t in (1, 2, 15):
        value = cohorts.client_value(images, labels, seed, t)
        trained = process.get_model_weights(process.next(process.initialize(), [value]).state).trainable
        rate = 0.1 * min(1, t / 2) * (1 + math.cos(math.pi * (t - 1) / ROUNDS)) / 2
        start = [w.astype(np.float64) for w in model.initial_weights[0]]
        expected = numpy_oracle.local_sgd(start, images, labels, rate, 4, 4)[-1]
        for a, b in zip(trained, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
