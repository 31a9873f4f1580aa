"""FedProx, SCAFFOLD and MimeLite against a few lines of NumPy over three rounds, TFF's own, and FedAvg as a limit."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import numpy_oracle, setups
from tests.setups import BATCH, RATE, sgd
from tff_personalization import cohorts, optimizers
from tff_personalization.algorithms import fed_avg, fed_prox, mime_lite, scaffold
from tff_personalization.models import emnist_cnn

pytestmark = pytest.mark.usefixtures("worker")
CLASSES, EPOCHS, POPULATION = 4, 2, 5
SEED = np.array([3, 4], np.int32)
# Client 1 returns in the second round, clients 1 and 2 in the third.
COHORTS = [(0, 1), (1, 2, 3), (2, 4, 1)]


@pytest.fixture
def model():
    return emnist_cnn.build_linear(CLASSES, np.random.default_rng(0))


@pytest.fixture(scope="module")
def clients():
    rng = np.random.default_rng(1)
    return [
        (rng.integers(0, 256, (n, 28, 28)).astype(np.uint8), rng.integers(0, CLASSES, n).astype(np.int32))
        for n in (10, 3, 8, 5, 9)
    ]


def values(clients, members, step_share=1.0):
    return [cohorts.client_value(*clients[i], SEED, step_share=step_share) for i in members]


def setup(module, model, **settings):
    return setups.setup(module, model, local_epochs=EPOCHS, **settings)


def run_rounds(process, clients, cohorts=COHORTS):
    state = process.initialize()
    for members in cohorts:
        state = process.next(state, values(clients, members)).state
    return process.get_model_weights(state).trainable


def run_stateful(process, clients, cohorts=COHORTS):
    state, kept = process.initialize(), {}
    for members in cohorts:
        states = [kept.get(i, process.client_state) for i in members]
        output = process.next(state, values(clients, members), states)
        state = output.state
        kept.update(zip(members, output.client_states, strict=True))
    return process.get_model_weights(state).trainable, state.client_work, kept


# The oracle: weights are lists of float64 arrays.


def start(model):
    return [w.astype(np.float64) for w in model.initial_weights[0]]


def plus(a, b, factor=1.0):
    return [x + factor * y for x, y in zip(a, b, strict=True)]


def zeros_like(weights):
    return [np.zeros_like(w) for w in weights]


def mean(parts, shares):
    return [
        sum(s * p for s, p in zip(shares, column, strict=True)) / sum(shares) for column in zip(*parts, strict=True)
    ]


def batches(client):
    x, y = numpy_oracle.flat(client[0]), client[1]
    return [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, len(y), BATCH)] * EPOCHS


def full_gradient(weights, client):
    return numpy_oracle.gradient(weights, numpy_oracle.flat(client[0]), client[1])


def assert_close(weights, expected, atol=1e-5):
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def test_fed_prox_equals_numpy(model, clients):
    strength, theta = 0.7, start(model)
    for members in COHORTS:
        ends = []
        for i in members:
            w = theta
            for batch in batches(clients[i]):
                pull = plus(w, theta, -1)
                w = plus(w, plus(numpy_oracle.gradient(w, *batch), pull, strength), -RATE)
            ends.append(w)
        theta = mean(ends, [len(clients[i][1]) for i in members])
    process = fed_prox.build_fed_prox(setup(fed_prox, model, proximal_strength=strength))
    assert_close(run_rounds(process, clients), theta)


def test_fed_prox_without_pull_is_fed_avg_and_with_a_strong_one_stays_nearer(model, clients):
    weights = [
        run_rounds(fed_prox.build_fed_prox(setup(fed_prox, model, proximal_strength=strength, shuffle=True)), clients)
        for strength in (0.0, 5.0)
    ]
    without = run_rounds(fed_avg.build_fed_avg(setup(fed_avg, model, shuffle=True)), clients)
    for a, b in zip(weights[0], without, strict=True):
        np.testing.assert_array_equal(a, b)
    distance = [sum(np.sum((a - b) ** 2) for a, b in zip(w, start(model), strict=True)) for w in weights]
    assert distance[1] < 0.7 * distance[0]


def test_tffs_fed_prox_is_ours_with_the_opposite_sign(model, clients):
    """TFF 0.87 adds μ (θ − w) to the gradient, and so drives local training away from θ. It fails when TFF is right."""
    with_tffs_sign = setup(fed_prox, model, client=sgd(0.02), server=sgd(1.0, 0.9))
    with_tffs_sign.settings.values["proximal_strength"] = -0.5  # which the program refuses
    ours = fed_prox.build_fed_prox(with_tffs_sign)
    stock = tff.learning.algorithms.build_weighted_fed_prox(
        model, proximal_strength=0.5, client_optimizer_fn=sgd(0.02).build(), server_optimizer_fn=sgd(1.0, 0.9).build()
    )
    assert_close(run_rounds(ours, clients), run_stock(stock, clients))


def run_stock(process, clients):
    state = process.initialize()
    for members in COHORTS:
        data = [tf.data.Dataset.from_tensor_slices(clients[i]).batch(BATCH).repeat(EPOCHS) for i in members]
        state = process.next(state, data).state
    return process.get_model_weights(state).trainable


def test_scaffold_its_control_variates_included_equals_numpy(model, clients):
    x = start(model)
    c, c_of = zeros_like(x), {}
    for members in COHORTS:
        ends, changes = [], []
        for i in members:
            c_i, y = c_of.get(i, zeros_like(x)), x
            for batch in batches(clients[i]):
                y = plus(y, plus(plus(numpy_oracle.gradient(y, *batch), c_i, -1), c), -RATE)
            steps = len(batches(clients[i]))
            c_of[i] = plus(plus(c_i, c, -1), plus(x, y, -1), 1 / (steps * RATE))
            changes.append(plus(c_of[i], c_i, -1))
            ends.append(y)
        x = mean(ends, [1] * len(members))
        c = plus(c, [sum(column) for column in zip(*changes, strict=True)], 1 / POPULATION)
    process = scaffold.build_scaffold(setup(scaffold, model), POPULATION)
    weights, server, kept = run_stateful(process, clients)
    assert_close(weights, x)
    assert_close(server, c)
    assert kept.keys() == c_of.keys()
    for i, c_i in c_of.items():
        assert_close(kept[i], c_i, atol=1e-4)
        assert max(np.abs(part).max() for part in c_i) > 1e-2


def test_a_stragglers_control_variate_is_of_the_steps_that_it_took(model, clients):
    x, taken = start(model), 3  # 0.4 of 6 steps, rounded up
    y = x
    for batch in batches(clients[0])[:taken]:
        y = plus(y, numpy_oracle.gradient(y, *batch), -RATE)
    process = scaffold.build_scaffold(setup(scaffold, model), POPULATION)
    output = process.next(process.initialize(), values(clients, [0], step_share=0.4), [process.client_state])
    assert_close(process.get_model_weights(output.state).trainable, y)
    assert_close(output.client_states[0], plus(zeros_like(x), plus(x, y, -1), 1 / (taken * RATE)), atol=1e-4)


def test_scaffolds_first_round_is_fed_avg_with_uniform_weights_and_its_second_is_not(model, clients):
    for rounds in (1, 2):
        process = scaffold.build_scaffold(setup(scaffold, model, shuffle=True), POPULATION)
        weights, _, _ = run_stateful(process, clients, COHORTS[:rounds])
        without = fed_avg.build_fed_avg(setup(fed_avg, model, client_weighting="uniform", shuffle=True))
        difference = max(
            np.abs(a - b).max() for a, b in zip(weights, run_rounds(without, clients, COHORTS[:rounds]), strict=True)
        )
        assert (difference == 0) == (rounds == 1)


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_mime_lite_with_momentum_equals_numpy(model, clients, weighting):
    momentum, x = 0.8, start(model)
    velocity = zeros_like(x)
    for members in COHORTS:
        ends, gradients = [], []
        for i in members:
            y = x
            for batch in batches(clients[i]):
                y = plus(y, plus(numpy_oracle.gradient(y, *batch), velocity, momentum), -RATE)
            ends.append(y)
            gradients.append(full_gradient(x, clients[i]))
        shares = [len(clients[i][1]) if weighting == "examples" else 1 for i in members]
        x = mean(ends, shares)
        velocity = plus(mean(gradients, shares), velocity, momentum)
    process = mime_lite.build_mime_lite(setup(mime_lite, model, base=sgd(RATE, momentum), client_weighting=weighting))
    assert_close(run_rounds(process, clients), x)


@pytest.mark.parametrize(
    "base", [sgd(0.02, 0.9), optimizers.OptimizerSpec("adam", 0.001, {"epsilon": 1e-3})], ids=["momentum", "adam"]
)
def test_mime_lite_equals_tffs(model, clients, base):
    ours = mime_lite.build_mime_lite(setup(mime_lite, model, base=base))
    stock = tff.learning.algorithms.build_weighted_mime_lite(model, base.build())
    # TFF weights a client by the examples of all its epochs, which gives the same shares.
    assert_close(run_rounds(ours, clients), run_stock(stock, clients), atol=2e-5)


def test_mime_lite_with_a_base_optimizer_without_state_is_fed_avg(model, clients):
    ours = run_rounds(mime_lite.build_mime_lite(setup(mime_lite, model, base=sgd(), shuffle=True)), clients)
    expected = run_rounds(fed_avg.build_fed_avg(setup(fed_avg, model, shuffle=True)), clients)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a, b)
