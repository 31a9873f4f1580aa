"""Methods with local heads against a few lines of NumPy on a linear network of two layers."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import numpy_oracle, setups
from tests.algorithms import test_oracles as oracles
from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import fed_per, fed_recon, fed_rep, partial_model
from tff_personalization.models import emnist_cnn, functional
from tff_personalization.personalization import evaluation

pytestmark = pytest.mark.usefixtures("worker")
HIDDEN, HEAD_EPOCHS, EPOCHS = 6, 3, 2
RATE = 0.01  # at larger rates training these two layers oscillates, and so do float32 errors
DECAY = optimizers.OptimizerSpec("adamw", 0.01, {"weight_decay": 0.1})
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
    """The gradient of U, V and b: the head's by the oracle, on features; U's by the chain rule."""
    u, v, b = weights
    of_kernel, _ = numpy_oracle.gradient([u @ v, b], x, y)
    return [of_kernel @ v.T, *numpy_oracle.gradient([v, b], x @ u, y)]


def train(weights, images, labels, trained, epochs, rate=RATE):
    """Epochs of SGD through the examples in order, of the weights named by `trained`."""
    x, weights = numpy_oracle.flat(images), list(weights)
    for _ in range(epochs):
        for start in range(0, len(labels), oracles.BATCH):
            batch = slice(start, start + oracles.BATCH)
            gradients = gradient(weights, x[batch], labels[batch])
            for i in trained:
                weights[i] = weights[i] - rate * gradients[i]
    return weights


def test_fed_recon_trains_heads_at_a_rate_of_their_own(model):
    """The rest at `RATE`; heads, in training and in `reconstruct_head`, at five times that."""
    ((images, labels),) = clients = oracles.make_clients(10)
    process = build_fed_recon(model, oracles.sgd(1.0), head_learning_rate=5 * RATE)
    trained, _ = oracles.run_rounds(process, [clients])
    u, *head = oracles.initial(model)
    theta = train([u, *head], images[::2], labels[::2], (1, 2), HEAD_EPOCHS, 5 * RATE)
    expected = train(theta, images[1::2], labels[1::2], (0,), EPOCHS)[0]
    np.testing.assert_allclose(trained[0], expected, atol=1e-5)
    at_one_rate, _ = oracles.run_rounds(build_fed_recon(model, oracles.sgd(1.0)), [clients])
    assert np.abs(trained[0] - at_one_rate[0]).max() > 1e-4


def setup(module, model, server, **settings):
    return setups.setup(module, model, client=setups.sgd(RATE), server=server, local_epochs=EPOCHS, **settings)


def build_fed_recon(model, server, **settings):
    return fed_recon.build_fed_recon(setup(fed_recon, model, server, head_epochs=HEAD_EPOCHS, **settings))


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_two_rounds_of_fed_recon_equal_numpy(model, weighting):
    """Every second example is support. A client with one example has no query half and does not count."""
    rounds = [oracles.make_clients(9, 13, 1), oracles.make_clients(7, 10)]
    trained, _ = oracles.run_rounds(build_fed_recon(model, oracles.sgd(1.0, 0.9), client_weighting=weighting), rounds)
    u, *head = oracles.initial(model)
    velocity = np.zeros_like(u)
    for clients in rounds:
        deltas, shares = [], []
        for images, labels in (client for client in clients if len(client[1]) > 1):
            theta = train([u, *head], images[::2], labels[::2], (1, 2), HEAD_EPOCHS)
            deltas.append(u - train(theta, images[1::2], labels[1::2], (0,), EPOCHS)[0])
            shares.append(len(labels) // 2 if weighting == "examples" else 1)
        velocity = 0.9 * velocity + np.average(deltas, axis=0, weights=shares)
        u = u - velocity
    np.testing.assert_allclose(trained[0], u, atol=1e-5)
    assert np.abs(u - model.initial_weights[0][0]).max() > 1e-3


def test_the_seed_deals_a_clients_examples_into_support_and_query_halves():
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
        (DECAY, None),
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
    client = local_training.ClientRound(on_features, tf.constant(oracles.SEED))
    end = partial_model.train_head(model, oracles.sgd(RATE).build(), oracles.BATCH, theta, client, HEAD_EPOCHS)
    u, *head = end.weights
    np.testing.assert_array_equal(u, theta[0])
    assert all(np.any(before != after) for before, after in zip(theta[1:], head, strict=True))


def test_reconstruct_trains_the_head_as_fed_recon_does_and_then_fine_tunes_all_layers(model):
    ((images, labels),) = oracles.make_clients(oracles.BATCH)
    test_images, test_labels = oracles.make_clients(3, 8)[1]
    evaluate = evaluation.build_personalization_evaluation(
        model,
        oracles.sgd(RATE).build(),
        epochs=EPOCHS,
        batch_size=oracles.BATCH,  # a full batch: its order does not matter
        strategies=["reconstruct", "reconstruct_head"],
        release="records",
        own_settings=lambda group: group(head_epochs=HEAD_EPOCHS, head_learning_rate=2 * RATE),
    )
    data = {
        "index": np.int32(0),
        "seed": oracles.SEED,
        "test": (test_images, test_labels),
        "train": (images, labels),
    }
    (record,) = evaluate(tff.learning.models.ModelWeights(*model.initial_weights), [data])
    x, start = numpy_oracle.flat(test_images), oracles.initial(model)
    weights = reconstructed = train(start, images, labels, (1, 2), HEAD_EPOCHS, 2 * RATE)
    for epoch, (u, v, b) in enumerate([start, *[reconstructed] * EPOCHS]):
        loss = numpy_oracle.loss([u @ v, b], x, test_labels)
        assert record["loss_sum"][1, epoch] / len(test_labels) == pytest.approx(loss, abs=1e-5)
    for epoch in range(EPOCHS + 1):
        u, v, b = weights
        loss = numpy_oracle.loss([u @ v, b], x, test_labels)
        assert record["loss_sum"][0, epoch] / len(test_labels) == pytest.approx(loss, abs=1e-5)
        weights = train(weights, images, labels, (0, 1, 2), 1)


def run_rounds_with_states(process, rounds):
    """The global weights and each client's state, after rounds of clients by name."""
    state, kept = process.initialize(), {}
    for cohort in rounds:
        states = [kept.get(name, process.client_state) for name in cohort]
        output = process.next(state, oracles.values(cohort.values()), states)
        state = output.state
        kept.update(zip(cohort, output.client_states, strict=True))
    return process.get_model_weights(state).trainable, kept


def build_fed_per(model, server, **settings):
    return fed_per.build_fed_per(setup(fed_per, model, server, **settings))


def build_fed_rep(model, server, head_epochs=HEAD_EPOCHS, **settings):
    return fed_rep.build_fed_rep(setup(fed_rep, model, server, head_epochs=head_epochs, **settings))


def fed_per_of_a_client(weights, images, labels):
    return train(weights, images, labels, (0, 1, 2), EPOCHS)


def fed_rep_of_a_client(weights, images, labels):
    return train(train(weights, images, labels, (1, 2), HEAD_EPOCHS), images, labels, (0,), EPOCHS)


@pytest.mark.parametrize(
    ("build", "of_a_client"),
    [(build_fed_per, fed_per_of_a_client), (build_fed_rep, fed_rep_of_a_client)],
    ids=["fed_per", "fed_rep"],
)
def test_three_rounds_with_kept_heads_equal_numpy(model, build, of_a_client):
    a, b, c = oracles.make_clients(9, 13, 6)
    rounds = [{"a": a, "b": b}, {"b": b, "c": c}, {"a": a, "b": b}]
    trained, kept = run_rounds_with_states(build(model, oracles.sgd(1.0, 0.9)), rounds)
    u, *head = oracles.initial(model)
    heads = dict.fromkeys("abc", head)
    velocity = np.zeros_like(u)
    for cohort in rounds:
        ends = {name: of_a_client([u, *heads[name]], *client) for name, client in cohort.items()}
        sizes = [len(labels) for _, labels in cohort.values()]
        velocity = 0.9 * velocity + np.average([u - end[0] for end in ends.values()], axis=0, weights=sizes)
        u = u - velocity
        heads.update({name: end[1:] for name, end in ends.items()})
    np.testing.assert_allclose(trained[0], u, atol=1e-5)
    for name, expected in heads.items():
        for ours, w in zip(kept[name], expected, strict=True):
            np.testing.assert_allclose(ours, w, atol=1e-5)
    assert np.abs(heads["a"][0] - heads["b"][0]).max() > 1e-3


def test_what_fed_rep_freezes_stays_untouched(model):
    """The global head in all rounds; a client's own, bit by bit, while the representation is trained."""
    initial, cohort = model.initial_weights[0], dict(zip("ab", oracles.make_clients(9, 6), strict=True))
    trained, _ = run_rounds_with_states(build_fed_rep(model, DECAY), [cohort, cohort])
    for before, after in zip(initial[1:], trained[1:], strict=True):
        np.testing.assert_array_equal(before, after)
    trained, kept = run_rounds_with_states(build_fed_rep(model, oracles.sgd(1.0), head_epochs=0), [cohort])
    for name in cohort:
        for before, after in zip(initial[1:], kept[name], strict=True):
            np.testing.assert_array_equal(before, after)
    assert np.any(trained[0] != initial[0])
