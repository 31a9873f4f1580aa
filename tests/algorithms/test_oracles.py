"""The algorithms against independent arithmetic, on softmax regression and with TFF's own FedAvg on the CNN."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from baselines import centralized, fed_sgd
from tests import numpy_oracle
from tests.setups import BATCH, RATE, setup, sgd
from tff_personalization import cohorts, optimizers
from tff_personalization.algorithms import fed_avg, reptile
from tff_personalization.models import emnist_cnn

pytestmark = pytest.mark.usefixtures("worker")
CLASSES = 5
SEED = np.array([3, 4], np.int32)


@pytest.fixture
def model():
    return emnist_cnn.build_linear(CLASSES, np.random.default_rng(0))


def make_clients(*sizes):
    rng = np.random.default_rng(1)
    return [
        (rng.integers(0, 256, (n, 28, 28)).astype(np.uint8), rng.integers(0, CLASSES, n).astype(np.int32))
        for n in sizes
    ]


def values(clients):
    return [cohorts.client_value(*client, SEED) for client in clients]


def run_rounds(process, rounds_of_clients):
    state = process.initialize()
    for clients in rounds_of_clients:
        output = process.next(state, values(clients))
        state = output.state
    return process.get_model_weights(state).trainable, output.metrics


def initial(model):
    return [w.astype(np.float64) for w in model.initial_weights[0]]


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_a_fed_avg_round_equals_numpy(model, weighting):
    clients, epochs = make_clients(10, 3, 8), 3  # short last batches, a client smaller than a batch
    process = fed_avg.build_fed_avg(setup(fed_avg, model, local_epochs=epochs, client_weighting=weighting))
    trained, metrics = run_rounds(process, [clients])
    delta = numpy_oracle.mean_delta(
        initial(model), clients, weighting, RATE, BATCH, lambda n: epochs * int(np.ceil(n / BATCH))
    )
    for w, d, after in zip(initial(model), delta, trained, strict=True):
        np.testing.assert_allclose(after, w - d, atol=1e-5)
    assert metrics["client_work"]["examples"] == epochs * 21
    assert metrics["client_work"]["clients"] == 3


def test_a_reptile_round_equals_numpy(model):
    clients, steps = make_clients(10, 3, 8), 7  # not a whole number of epochs for any client
    process = reptile.build_reptile(setup(reptile, model, server=sgd(0.5), local_steps=steps))
    trained, _ = run_rounds(process, [clients])
    delta = numpy_oracle.mean_delta(initial(model), clients, "uniform", RATE, BATCH, lambda n: steps)
    for w, d, after in zip(initial(model), delta, trained, strict=True):
        np.testing.assert_allclose(after, w - 0.5 * d, atol=1e-5)


def test_a_fed_sgd_round_is_one_step_down_the_gradient_of_all_examples(model):
    clients = make_clients(10, 3, 8)
    trained, _ = run_rounds(fed_sgd.build_fed_sgd(setup(fed_sgd, model)), [clients])
    pooled = [np.concatenate(parts) for parts in zip(*clients, strict=True)]
    gradient = numpy_oracle.gradient(initial(model), numpy_oracle.flat(pooled[0]), pooled[1])
    for w, g, after in zip(initial(model), gradient, trained, strict=True):
        np.testing.assert_allclose(after, w - RATE * g, atol=1e-5)


def momentum_steps(weights, delta_of, rounds, rate=1.0, momentum=0.9):
    velocity = [np.zeros_like(w) for w in weights]
    for number in range(rounds):
        delta = delta_of(weights, number)
        velocity = [momentum * v + d for v, d in zip(velocity, delta, strict=True)]
        weights = [w - rate * v for w, v in zip(weights, velocity, strict=True)]
    return weights


def adam_steps(weights, delta_of, rounds, rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    m = [np.zeros_like(w) for w in weights]
    v = [np.zeros_like(w) for w in weights]
    for number in range(rounds):
        delta = delta_of(weights, number)
        m = [beta_1 * a + (1 - beta_1) * d for a, d in zip(m, delta, strict=True)]
        v = [beta_2 * a + (1 - beta_2) * d**2 for a, d in zip(v, delta, strict=True)]
        scale = rate * np.sqrt(1 - beta_2 ** (number + 1)) / (1 - beta_1 ** (number + 1))
        weights = [w - scale * a / (np.sqrt(b) + epsilon) for w, a, b in zip(weights, m, v, strict=True)]
    return weights


@pytest.mark.parametrize(
    ("server", "steps"),
    [(sgd(1.0, 0.9), momentum_steps), (optimizers.OptimizerSpec("adam", 0.01), adam_steps)],
    ids=["momentum", "adam"],
)
def test_three_rounds_with_a_server_optimizer_equal_numpy(model, server, steps):
    rounds = [make_clients(10, 3), make_clients(5, 8), make_clients(4, 4, 9)]

    def delta_of(weights, number):
        return numpy_oracle.mean_delta(
            weights, rounds[number], "examples", RATE, BATCH, lambda n: 2 * int(np.ceil(n / BATCH))
        )

    process = fed_avg.build_fed_avg(setup(fed_avg, model, server=server, local_epochs=2))
    trained, _ = run_rounds(process, rounds)
    for expected, after in zip(steps(initial(model), delta_of, 3), trained, strict=True):
        np.testing.assert_allclose(after, expected, atol=1e-5)


def test_fed_avg_equals_reptile_when_every_client_has_k_over_e_batches(model):
    """Under uniform weights, and with shuffling: both draw the same permutations."""
    clients, epochs = make_clients(12, 11, 10), 2  # three batches of four each
    by_epochs = fed_avg.build_fed_avg(
        setup(fed_avg, model, local_epochs=epochs, client_weighting="uniform", shuffle=True)
    )
    by_steps = reptile.build_reptile(setup(reptile, model, local_steps=3 * epochs, shuffle=True))
    for a, b in zip(run_rounds(by_epochs, [clients])[0], run_rounds(by_steps, [clients])[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_fed_avg_is_fed_sgd_plus_fomaml_terms_along_a_clients_path(model):
    """β Σ g_j = β (g_1 + Σ_{j≥1} FOMAML(j)), FOMAML(j) the next batch's gradient at the weights after j steps."""
    (client,) = make_clients(12)
    path = numpy_oracle.local_sgd(initial(model), *client, RATE, BATCH, 3)
    x, y = numpy_oracle.flat(client[0]), client[1]
    batches = [slice(0, 4), slice(4, 8), slice(8, 12)]
    fed_sgd_term = numpy_oracle.gradient(path[0], x[batches[0]], y[batches[0]])
    fomaml = [numpy_oracle.gradient(path[j], x[batches[j]], y[batches[j]]) for j in (1, 2)]
    process = fed_avg.build_fed_avg(setup(fed_avg, model, local_epochs=1))
    trained, _ = run_rounds(process, [[client]])
    for i, (w, after) in enumerate(zip(initial(model), trained, strict=True)):
        delta = RATE * (fed_sgd_term[i] + sum(term[i] for term in fomaml))
        np.testing.assert_allclose(w - after, delta, atol=1e-5)
        assert np.abs(delta - 3 * RATE * fed_sgd_term[i]).max() > 1e-4  # the FOMAML terms are not FedSGD again


def test_three_rounds_equal_tffs_own_fed_avg_on_the_cnn():
    model = emnist_cnn.build_cnn(CLASSES, np.random.default_rng(0), dropout=False)
    rounds = [make_clients(9, 6), make_clients(4, 7), make_clients(5, 5)]
    ours = fed_avg.build_fed_avg(setup(fed_avg, model, client=sgd(0.02), server=sgd(1.0, 0.9), local_epochs=2))
    stock = tff.learning.algorithms.build_weighted_fed_avg(
        model, client_optimizer_fn=sgd(0.02).build(), server_optimizer_fn=sgd(1.0, 0.9).build()
    )
    state = stock.initialize()
    for clients in rounds:
        data = [tf.data.Dataset.from_tensor_slices(client).batch(BATCH).repeat(2) for client in clients]
        state = stock.next(state, data).state
    for ours_after, stock_after in zip(
        run_rounds(ours, rounds)[0], stock.get_model_weights(state).trainable, strict=True
    ):
        np.testing.assert_allclose(ours_after, stock_after, atol=1e-5)


def test_pooled_training_keeps_its_optimizers_state_from_round_to_round(model):
    """Two rounds of pooled momentum SGD equal one longer pass through the same examples."""
    (client,) = make_clients(16)
    halves = [[(client[0][:8], client[1][:8])], [(client[0][8:], client[1][8:])]]
    process = centralized.build_centralized(setup(centralized, model, client=sgd(RATE, 0.9)))
    in_two, _ = run_rounds(process, halves)
    in_one, _ = run_rounds(process, [[client]])
    weights, velocity = initial(model), [np.zeros_like(w) for w in initial(model)]
    x = numpy_oracle.flat(client[0])
    for start in range(0, 16, BATCH):
        gradient = numpy_oracle.gradient(weights, x[start : start + BATCH], client[1][start : start + BATCH])
        velocity = [0.9 * v + g for v, g in zip(velocity, gradient, strict=True)]
        weights = [w - RATE * v for w, v in zip(weights, velocity, strict=True)]
    for two, one, expected in zip(in_two, in_one, weights, strict=True):
        np.testing.assert_allclose(two, expected, atol=1e-5)
        np.testing.assert_allclose(one, expected, atol=1e-5)
