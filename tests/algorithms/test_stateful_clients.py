"""A process whose clients keep states."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import setups
from tff_personalization import cohorts, local_training
from tff_personalization.algorithms import client_work, fed_avg, stateful_clients
from tff_personalization.models import emnist_cnn

pytestmark = pytest.mark.usefixtures("worker")
CLASSES, BATCH = 3, setups.BATCH
SEED = np.array([3, 4], np.int32)


@pytest.fixture
def model():
    return emnist_cnn.build_linear(CLASSES, np.random.default_rng(0))


def values(*sizes):
    rng = np.random.default_rng(1)
    return [
        cohorts.client_value(rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, CLASSES, n, np.int32), SEED)
        for n in sizes
    ]


def sgd(rate):
    return tff.learning.optimizers.build_sgdm(rate)


def counting(model, rate=0.1):
    """FedAvg(1) whose clients count their visits in all rounds; the server counts the sum."""
    training = local_training.LocalTraining(model, sgd(rate), BATCH, shuffle=False)

    def update(theta, client, state):
        end = training.train_epochs(theta, client, 1)
        seen = collections.OrderedDict(seen=state.client["seen"] + end.examples)
        return client_work.update_from(theta, end, report=(end.examples,), state=seen)

    total = client_work.ServerState(lambda: (tf.constant(0),), lambda state, report: (state[0] + report[0],))
    return stateful_clients.build_stateful_process(
        model, update, "examples", collections.OrderedDict(seen=np.int32(0)), sgd(1.0), server_state=total
    )


def kept(output):
    return [int(state["seen"]) for state in output.client_states]


def test_clients_get_back_what_they_kept_in_the_order_of_the_cohort(model):
    process = counting(model)
    first = process.next(process.initialize(), values(5, 9), [process.client_state] * 2)
    assert kept(first) == [5, 9]
    second = process.next(
        first.state, values(9, 2, 5), [first.client_states[1], process.client_state, first.client_states[0]]
    )
    assert kept(second) == [18, 2, 10]
    assert second.state.client_work[0] == 5 + 9 + 9 + 2 + 5


def test_the_model_is_trained_as_without_states(model):
    process = counting(model)
    plain = fed_avg.build_fed_avg(setups.setup(fed_avg, model, local_epochs=1))
    output = process.next(process.initialize(), values(5, 9), [process.client_state] * 2)
    expected = plain.next(plain.initialize(), values(5, 9))
    for a, b in zip(
        process.get_model_weights(output.state).trainable,
        plain.get_model_weights(expected.state).trainable,
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert output.metrics["client_work"] == expected.metrics["client_work"]


def test_a_client_that_takes_no_part_keeps_its_state_and_reports_nothing(model):
    empty = values(0)
    process = counting(model)
    before = collections.OrderedDict(seen=np.int32(7))
    output = process.next(process.initialize(), [*empty, *values(5)], [before, before])
    assert kept(output) == [7, 12]
    process = counting(model, rate=1e38)
    output = process.next(process.initialize(), values(9), [before])
    assert output.metrics["client_work"]["non_finite_clients"] == 1
    assert kept(output) == [7]
    assert output.state.client_work[0] == 0


def test_weights_are_read_and_set(model):
    process = counting(model)
    ones = tuple(np.ones_like(w) for w in model.initial_weights[0])
    state = process.set_model_weights(process.initialize(), tff.learning.models.ModelWeights(ones, ()))
    for weights in process.get_model_weights(state).trainable:
        np.testing.assert_array_equal(weights, 1)
