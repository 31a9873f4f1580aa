"""IFCA against a few lines of NumPy: clients' choice of models, each cluster's mean, a cluster without members."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import numpy_oracle, setups
from tests.algorithms import test_oracles as oracles
from tff_personalization import local_training
from tff_personalization.algorithms import fed_avg, ifca
from tff_personalization.models import emnist_cnn
from tff_personalization.personalization import evaluation

pytestmark = pytest.mark.usefixtures("worker")
CLUSTERS, EPOCHS = 3, 2
MOMENTUM = 0.9


@pytest.fixture
def models():
    return [emnist_cnn.build_linear(oracles.CLASSES, np.random.default_rng(seed)) for seed in range(CLUSTERS)]


def build(models, server=None, **settings):
    server = server or oracles.sgd(1.0, MOMENTUM)
    setup = setups.setup(ifca, models[0], server=server, local_epochs=EPOCHS, **settings)
    return ifca.build_ifca(setup, ifca.first_models(*models))


def steps_of(count):
    return EPOCHS * int(np.ceil(count / oracles.BATCH))


def choices(thetas, clients):
    return [
        int(np.argmin([numpy_oracle.loss(theta, numpy_oracle.flat(images), labels) for theta in thetas]))
        for images, labels in clients
    ]


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_three_rounds_equal_numpy_and_a_cluster_without_members_keeps_model_and_momentum(models, weighting):
    rounds = [oracles.make_clients(9, 6, 7, 12), oracles.make_clients(5, 8)[::-1], oracles.make_clients(7, 4, 9, 11)]
    process = build(models, client_weighting=weighting)
    trained, _ = oracles.run_rounds(process, rounds)

    thetas = [oracles.initial(model) for model in models]
    velocities = [[np.zeros_like(w) for w in theta] for theta in thetas]
    empty = 0
    for clients in rounds:
        chosen = choices(thetas, clients)
        for j in range(CLUSTERS):
            members = [client for client, choice in zip(clients, chosen, strict=True) if choice == j]
            empty += not members
            if members:
                delta = numpy_oracle.mean_delta(thetas[j], members, weighting, oracles.RATE, oracles.BATCH, steps_of)
                velocities[j] = [MOMENTUM * v + d for v, d in zip(velocities[j], delta, strict=True)]
                thetas[j] = [w - v for w, v in zip(thetas[j], velocities[j], strict=True)]
    assert empty, "the data is to leave a cluster without members in some round"
    assert any(np.any(v != 0) for v in velocities[0])
    for expected, after in zip([w for theta in thetas for w in theta], trained, strict=True):
        np.testing.assert_allclose(after, expected, atol=1e-5)


def test_the_shares_of_the_clusters_are_measured(models):
    clients = oracles.make_clients(9, 6, 7, 12)
    process = build(models)
    shares = process.next(process.initialize(), oracles.values(clients)).metrics["aggregator"]["shares"]
    chosen = choices([oracles.initial(model) for model in models], clients)
    assert len(set(chosen)) > 1
    np.testing.assert_allclose(shares, np.bincount(chosen, [9, 6, 7, 12], CLUSTERS) / 34, atol=1e-6)


def test_one_cluster_is_fed_avg(models):
    rounds = [oracles.make_clients(10, 3, 8), oracles.make_clients(6, 5)]
    alone, _ = oracles.run_rounds(build(models[:1], shuffle=True), rounds)
    of_one = setups.setup(fed_avg, models[0], server=oracles.sgd(1.0, MOMENTUM), local_epochs=EPOCHS, shuffle=True)
    process = fed_avg.build_fed_avg(of_one)
    for ours, theirs in zip(alone, oracles.run_rounds(process, rounds)[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_clipping_takes_hold_of_a_clients_own_delta(models):
    """A cluster with one client gets its clipped delta: the client's share of the cohort does not undo the clipping."""
    clients, clip = oracles.make_clients(9, 6, 7, 12), 0.01
    factory = tff.aggregators.clipping_factory(clip, tff.aggregators.MeanFactory())
    process = build(models, oracles.sgd(1.0), aggregator=factory)
    trained, _ = oracles.run_rounds(process, [clients])
    chosen = choices([oracles.initial(model) for model in models], clients)
    alone = [j for j in range(CLUSTERS) if chosen.count(j) == 1]
    assert alone
    for j in alone:
        start = ifca.first_models(*models)
        before, after = (ifca.models_of(weights)[j] for weights in (start, start.like(trained)))
        norm = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(after, before, strict=True)))
        assert norm == pytest.approx(clip, rel=1e-3)


def test_a_model_that_is_not_finite_is_not_chosen(models):
    ((images, labels),) = oracles.make_clients(6)
    broken = tuple(w * np.nan for w in models[0].initial_weights[0])
    examples = local_training.Examples(tf.constant(images), tf.constant(labels))
    assert ifca.choose(models[0], [broken, models[1].initial_weights[0]], examples) == 1


def test_best_cluster_starts_from_the_model_that_fits_the_train_part(models):
    """Epoch 0 is the chosen model, evaluated on the test part, which is not used for the choice."""
    clients = oracles.make_clients(9, 6, 7, 12)
    weights = ifca.first_models(*models)
    evaluate = evaluation.build_personalization_evaluation(
        models[0],
        oracles.sgd().build(),
        epochs=1,
        batch_size=oracles.BATCH,
        strategies=["best_cluster"],
        release="records",
        initial_weights=weights,
    )
    tests = clients[::-1]
    data = [
        {"index": np.int32(i), "seed": oracles.SEED, "test": test, "train": train}
        for i, (train, test) in enumerate(zip(clients, tests, strict=True))
    ]
    thetas = [oracles.initial(model) for model in models]
    chosen = choices(thetas, clients)
    assert chosen != choices(thetas, tests)
    for record, j, (images, labels) in zip(
        evaluate(tff.learning.models.ModelWeights(weights.flat, ()), data), chosen, tests, strict=True
    ):
        loss = numpy_oracle.loss(thetas[j], numpy_oracle.flat(images), labels)
        assert record["loss_sum"][0, 0] / len(labels) == pytest.approx(loss, abs=1e-4)
        assert record["loss_sum"][0, 1] != record["loss_sum"][0, 0]
