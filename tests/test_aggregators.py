"""Aggregation of model deltas: every aggregator, in one piece and in parts, with clients left out, and dp's noise."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import aggregators, errors
from tff_personalization.algorithms import client_work, composition
from tff_personalization.cohorts import client_value
from tff_personalization.execution import runtime
from tff_personalization.models import emnist_cnn

SETTINGS = {"dp_noise_multiplier": 0.0, "dp_delta": None}
CLIENTS = (5, 9, 2, 7, 4)  # their examples


def deltas(theta, client, state):
    """A delta of n/1000 in one weight, below every aggregator's first bounds; not finite where n = 7, huge for 11."""
    del state
    size = tf.shape(client.examples.y)[0]
    n = tf.cast(size, tf.float32)
    factor = tf.where(tf.equal(size, 7), np.nan, tf.where(tf.equal(size, 11), 1e6, 1.0))
    first = tf.one_hot(0, tf.size(theta[0])) * factor * n / 1000
    return client_work.ClientUpdate(
        (tf.reshape(first, theta[0].shape), tf.zeros_like(theta[1])), n, tf.constant(0), size, size
    )


@functools.cache
def process_of(name, cohort):
    model = emnist_cnn.build_linear(3, np.random.default_rng(1))
    aggregator = aggregators.AGGREGATORS[name]
    factory = aggregator.build(aggregator.settings.read(SETTINGS), cohort)
    return composition.build_process(model, deltas, "examples", tff.learning.optimizers.build_sgdm(1.0), factory)


def one_round(name, clients=CLIENTS):
    process = process_of(name, len(clients))
    data = [
        client_value(np.zeros((n, 28, 28), np.uint8), np.zeros(n, np.int32), np.array([n, 2], np.int32))
        for n in clients
    ]
    state = process.initialize()
    output = process.next(state, data)
    before, after = (process.get_model_weights(s).trainable for s in (state, output.state))
    return [b - a for b, a in zip(before, after, strict=True)], output.metrics["client_work"]


def check_that_a_client_is_left_out(name):
    delta, measured = one_round(name)
    assert measured["non_finite_clients"] == 1
    assert measured["clients"] == 4
    finite = np.array([5, 9, 2, 4])
    # dp divides by the cohort, including the client left out; the others by the weights of the clients that reported.
    expected = finite.sum() / 1000 / 5 if name == "dp" else (finite**2).sum() / finite.sum() / 1000
    assert delta[0].flat[0] == pytest.approx(expected, rel=1e-3)
    assert np.abs(delta[0]).sum() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", aggregators.AGGREGATORS)
def test_every_aggregator_leaves_out_a_client_whose_delta_is_not_finite(worker, name):
    check_that_a_client_is_left_out(name)


@pytest.mark.parametrize("name", aggregators.AGGREGATORS)
def test_the_model_stays_when_no_client_sends_a_finite_delta(worker, name):
    delta, measured = one_round(name, clients=5 * (7,))
    assert measured["non_finite_clients"] == 5
    assert all((part == 0).all() for part in delta)


@pytest.mark.parametrize("name", ["robust", "compression", "dp", "secure_sum"])
def test_a_huge_delta_is_zeroed_or_clipped(worker, name):
    delta, _ = one_round(name, clients=(5, 11, 2, 4, 4))
    # Zeroed by robust (its weight stays); clipped to 0.1, where its norm begins, by dp.
    expected = (0.015 + 0.1) / 5 if name == "dp" else (25 + 4 + 16 + 16) / 26 / 1000
    assert delta[0].flat[0] == pytest.approx(expected, rel=1e-3)


def noise_of_zeros(noise_multiplier, clients, times):
    """The mean of `clients` zero vectors of 8,000 numbers, several times, as (times, 8000)."""
    factory = aggregators.differentially_private(noise_multiplier, clients)
    process = factory.create(tff.types.to_type((np.float32, [8000])))
    zeros = [np.zeros(8000, np.float32)] * clients
    # From the same state each time: its clipping norm is 0.1, and is not learnt further.
    state = process.initialize()
    return np.stack([process.next(state, zeros).result for _ in range(times)])


@pytest.mark.parametrize(("noise_multiplier", "clients"), [(0.4, 20), (2.0, 4)])
def test_dp_adds_noise_of_the_documented_standard_deviation(worker, noise_multiplier, clients):
    noise = noise_of_zeros(noise_multiplier, clients, times=10)
    b = max(0.05 * clients, noise_multiplier)
    expected = 0.1 * (noise_multiplier**-2 - (2 * b) ** -2) ** -0.5 / clients
    # 80,000 draws: the standard deviation is known to a quarter of a percent.
    assert noise.std() == pytest.approx(expected, rel=0.015)
    assert abs(noise.mean()) < 5 * expected / np.sqrt(noise.size)
    # Drawn again each time, each weight by itself.
    correlations = np.corrcoef(noise[:5])[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < 6 / np.sqrt(8000)


def test_noise_is_added_once_however_many_parts_a_cohort_is_computed_in(tmp_path):
    with (tmp_path / "log").open("wb") as log, runtime.execution_context(2, log, clients_per_call=1):
        noise = noise_of_zeros(2.0, 4, times=3)
    assert noise.std() == pytest.approx(0.1 * (1 / 4 - 1 / 16) ** -0.5 / 4, rel=0.03)


def test_a_users_aggregator_may_not_take_a_name_that_exists():
    with pytest.raises(errors.UserError, match=r"aggregator 'mean' exists already"):
        aggregators.register("mean", aggregators.AGGREGATORS["mean"])
    assert list(aggregators.AGGREGATORS) == ["mean", "robust", "compression", "dp", "secure_sum"]


@pytest.fixture(scope="module")
def _in_parts(tmp_path_factory):
    """Computes the tests from here on over two clients at a time."""
    log_path = tmp_path_factory.mktemp("worker") / "worker.log"
    with log_path.open("wb") as log, runtime.execution_context(2, log, clients_per_call=2):
        yield


@pytest.mark.usefixtures("_in_parts")
@pytest.mark.parametrize("name", [name for name in aggregators.AGGREGATORS if name != "robust"])
def test_so_it_does_in_parts(name):
    """`compression` does all that `robust` does, and more."""
    check_that_a_client_is_left_out(name)
