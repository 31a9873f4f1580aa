"""Methods with local heads against a few lines of NumPy on a linear network of two layers."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import numpy_oracle
from tests.algorithms import test_oracles as oracles
from tff_personalization import local_training
from tff_personalization.algorithms import fed_recon, partial_model
from tff_personalization.models import emnist_cnn, functional
from tff_personalization.personalization import evaluation

pytestmark = pytest.mark.usefixtures("worker")
HIDDEN, HEAD_EPOCHS, EPOCHS = 6, 3, 2
NOISE = tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(noise_multiplier=1.0, clients_per_round=2, clip=0.1)


@pytest.fixture
def model():
    """Logits x·U·V + b: U is shared, V and b are the head."""
    rng = np.random.default_rng(0)
    weights = (
        functional.glorot_uniform(rng, 784, HIDDEN),
        functional.glorot_uniform(rng, HIDDEN, oracles.CLASSES),
        np.zeros(oracles.CLASSES, np.float32),
    )
    return functional.SeededModel(
        weights,
        lambda weights, x: tf.matmul(tf.reshape(tf.cast(x, tf.float32) / 255, [-1, 784]), weights[0]),
        lambda weights, h, dropout_seed: tf.matmul(h, weights[1]) + weights[2],
        stem_size=1,
        head_size=2,
        x_spec=emnist_cnn.IMAGES,
    )


def gradient(weights, x, y):
    """Of U, V and b: the head's by the oracle, on features; U's by the chain rule, from that of the logits' kernel."""
    u, v, b = weights
    of_kernel, _ = numpy_oracle.gradient([u @ v, b], x, y)
    return [of_kernel @ v.T, *numpy_oracle.gradient([v, b], x @ u, y)]


def train(weights, images, labels, trained, epochs):
    """Epochs of SGD through the examples in order, of the weights named by `trained`."""
    x, weights = numpy_oracle.flat(images), list(weights)
    for _ in range(epochs):
        for start in range(0, len(labels), oracles.BATCH):
            batch = slice(start, start + oracles.BATCH)
            gradients = gradient(weights, x[batch], labels[batch])
            for i in trained:
                weights[i] = weights[i] - oracles.RATE * gradients[i]
    return weights


def build_fed_recon(model, server, **settings):
    return fed_recon.build_fed_recon(
        model, oracles.sgd(), server, HEAD_EPOCHS, EPOCHS, oracles.BATCH, **{"shuffle": False, **settings}
    )


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_two_rounds_of_fed_recon_equal_numpy(model, weighting):
    """Every second example is support; a client with one example has no query half and does not count."""
    rounds = [oracles.make_clients(9, 13, 1), oracles.make_clients(7, 10)]
    trained, _ = oracles.run_rounds(build_fed_recon(model, oracles.sgd(1.0, 0.9), weighting=weighting), rounds)
    u, *head = oracles.initial(model)
    velocity = np.zeros_like(u)
    for clients in rounds:
        deltas, shares = [], []
        for images, labels in clients:
            theta = train([u, *head], images[::2], labels[::2], (1, 2), HEAD_EPOCHS)
            deltas.append(u - train(theta, images[1::2], labels[1::2], (0,), EPOCHS)[0])
            shares.append(len(labels) // 2 if weighting == "examples" else min(len(labels) // 2, 1))
        velocity = 0.9 * velocity + np.average(deltas, axis=0, weights=shares)
        u = u - velocity
    np.testing.assert_allclose(trained[0], u, atol=1e-5)
    assert np.abs(u - model.initial_weights[0][0]).max() > 1e-3


def test_support_and_query_halves_are_a_clients_examples_dealt_anew_by_the_seed():
    ((images, _),) = oracles.make_clients(9)
    examples = local_training.Examples(tf.constant(images), tf.range(9))
    dealt = [fed_recon.halves(examples, tf.constant(seed)) for seed in ([1, 2], [1, 2], [1, 3])]
    for support, query in dealt:
        assert (len(support.y), len(query.y)) == (5, 4)
        assert sorted([*support.y.numpy(), *query.y.numpy()]) == list(range(9))
        np.testing.assert_array_equal(support.x, images[support.y.numpy()])
    assert dealt[0][0].y.numpy().tolist() == dealt[1][0].y.numpy().tolist() != dealt[2][0].y.numpy().tolist()


@pytest.mark.parametrize(
    ("server", "aggregator"),
    [
        (tff.learning.optimizers.build_adamw(0.01, weight_decay=0.1), None),
        (oracles.sgd(1.0, 0.9), tff.aggregators.as_weighted_aggregator(NOISE)),
    ],
    ids=["weight decay", "noise"],
)
def test_the_head_of_the_global_model_stays_the_initial_one_and_is_not_sent(model, server, aggregator):
    process = build_fed_recon(model, server, aggregator=aggregator)
    rounds = [oracles.make_clients(9, 6), oracles.make_clients(8, 5)]
    trained, _ = oracles.run_rounds(process, rounds)
    for before, after in zip(model.initial_weights[0][1:], trained[1:], strict=True):
        np.testing.assert_array_equal(before, after)
    assert np.any(model.initial_weights[0][0] != trained[0])


def test_what_is_frozen_has_a_delta_of_zero(model):
    ((images, labels),) = oracles.make_clients(9)
    examples = local_training.Examples(tf.constant(images), tf.constant(labels))
    theta = tuple(tf.constant(w) for w in model.initial_weights[0])
    on_features = local_training.features(model, theta, examples)
    seed = tf.constant(oracles.SEED)
    u, *head = partial_model.train_head(model, oracles.sgd(), oracles.BATCH, theta, on_features, seed, HEAD_EPOCHS)
    np.testing.assert_array_equal(u, theta[0])
    assert all(np.any(before != after) for before, after in zip(theta[1:], head, strict=True))


def test_reconstruct_trains_the_head_as_fed_recon_does_and_then_fine_tunes_all_layers(model):
    ((images, labels),) = oracles.make_clients(oracles.BATCH)
    test_images, test_labels = oracles.make_clients(3, 8)[1]
    evaluate = evaluation.build_personalization_evaluation(
        model,
        oracles.sgd(),
        epochs=EPOCHS,
        batch_size=oracles.BATCH,  # a full batch: its order does not matter
        strategies=["reconstruct"],
        release="records",
        values={"head_epochs": HEAD_EPOCHS},
    )
    data = {
        "index": np.int32(0),
        "seed": oracles.SEED,
        "test": (test_images, test_labels),
        "train": (images, labels),
    }
    (record,) = evaluate(tff.learning.models.ModelWeights(*model.initial_weights), [data])
    weights = train(oracles.initial(model), images, labels, (1, 2), HEAD_EPOCHS)
    for epoch in range(EPOCHS + 1):
        u, v, b = weights
        loss = numpy_oracle.loss([u @ v, b], numpy_oracle.flat(test_images), test_labels)
        assert record["loss_sum"][0, epoch] / len(test_labels) == pytest.approx(loss, abs=1e-5)
        weights = train(weights, images, labels, (0, 1, 2), 1)
