"""Methods whose clients have their own models, against a few lines of NumPy on one or two linear layers.

There are three rounds: one client is in all of them, one in two, one only in the second.
"""

import numpy as np
import pytest

from tests import numpy_oracle, setups
from tests.algorithms import test_oracles as oracles
from tests.algorithms import test_partial_models as partial_models
from tff_personalization import optimizers
from tff_personalization.algorithms import apfl, ditto, fed_ala, fed_amp, fed_babu, fed_proto, fed_rod, p_fed_me
from tff_personalization.models import emnist_cnn

pytestmark = pytest.mark.usefixtures("worker")
EPOCHS, RATE, STRENGTH = 2, 0.05, 0.7
SMALL = 0.01  # at larger rates training two layers oscillates, and so do float32 errors


@pytest.fixture
def model():
    return emnist_cnn.build_linear(oracles.CLASSES, np.random.default_rng(0))


two_layers = partial_models.model


def setup(module, model, rate=RATE, **settings):
    server = {"server": setups.sgd(1.0, 0.9)} if "server" in module.METHOD.settings.parts() else {}
    return setups.setup(module, model, client=setups.sgd(rate), **server, **settings)


@pytest.fixture
def rounds():
    a, b, c = oracles.make_clients(9, 13, 6)
    return [{"a": a, "b": b}, {"b": b, "c": c}, {"a": a, "b": b}]


def batches(client, count):
    """The first `count` batches of a client that does not shuffle."""
    images, labels = client
    x, starts = numpy_oracle.flat(images), range(0, len(labels), oracles.BATCH)
    for step in range(count):
        batch = slice(starts[step % len(starts)], starts[step % len(starts)] + oracles.BATCH)
        yield x[batch], labels[batch]


def of_epochs(client):
    return batches(client, EPOCHS * -(-len(client[1]) // oracles.BATCH))


def move(weights, gradients, rate=RATE):
    return [w - rate * g for w, g in zip(weights, gradients, strict=True)]


def assert_rounds_equal_numpy(process, rounds, w, kept_at_first, of_a_client, uniform=False):
    """Uses server momentum 0.9. Returns what clients keep."""
    trained, kept = partial_models.run_rounds_with_states(process, rounds)
    velocity, states = [np.zeros_like(part) for part in w], dict.fromkeys("abc", kept_at_first)
    for cohort in rounds:
        found = {name: of_a_client(w, client, states[name]) for name, client in cohort.items()}
        sizes = [1 if uniform else len(labels) for _, labels in cohort.values()]
        for i, part in enumerate(w):
            delta = np.average([part - end[i] for end, _ in found.values()], axis=0, weights=sizes)
            velocity[i] = 0.9 * velocity[i] + delta
        w = [part - v for part, v in zip(w, velocity, strict=True)]
        states |= {name: state for name, (_, state) in found.items()}
    pairs = [*zip(trained, w, strict=True)]
    for name, state in states.items():
        pairs += zip(kept[name], state, strict=True)
    difference = max(np.abs(ours - theirs).max() for ours, theirs in pairs)
    assert difference < 1e-5
    return states


def test_ditto_equals_numpy(model, rounds):
    def of_a_client(w, client, v):
        end = w
        for x, y in of_epochs(client):
            end = move(end, numpy_oracle.gradient(end, x, y))
            gradients = numpy_oracle.gradient(v, x, y)
            v = move(v, [g + STRENGTH * (a - b) for g, a, b in zip(gradients, v, w, strict=True)])
        return end, v

    process = ditto.build_ditto(setup(ditto, model, local_epochs=EPOCHS, ditto_lambda=STRENGTH))
    start = oracles.initial(model)
    states = assert_rounds_equal_numpy(process, rounds, start, start, of_a_client)
    assert np.abs(states["a"][0] - states["b"][0]).max() > 1e-3


def test_p_fed_me_equals_numpy(model, rounds):
    settings = {"local_steps": 5, "p_fed_me_lambda": 2.0, "p_fed_me_steps": 3, "p_fed_me_learning_rate": 0.2}

    def of_a_client(w, client, theta):
        w_i, theta = w, w  # a client's next round does not start from what it kept
        for x, y in batches(client, 5):
            for _ in range(3):
                gradients = numpy_oracle.gradient(theta, x, y)
                theta = move(theta, [g + 2.0 * (t - a) for g, t, a in zip(gradients, theta, w_i, strict=True)])
            w_i = [a - 0.2 * 2.0 * (a - t) for a, t in zip(w_i, theta, strict=True)]
        return w_i, theta

    process = p_fed_me.build_p_fed_me(setup(p_fed_me, model, **settings))
    start = oracles.initial(model)
    assert_rounds_equal_numpy(process, rounds, start, start, of_a_client, uniform=True)


@pytest.mark.parametrize("learn", [True, False], ids=["learnt", "fixed"])
def test_apfl_equals_numpy(model, rounds, learn):
    def of_a_client(w, client, kept):
        *v, alpha = kept
        for x, y in of_epochs(client):
            of_mixture = numpy_oracle.gradient([alpha * a + (1 - alpha) * b for a, b in zip(v, w, strict=True)], x, y)
            slope = sum(((a - b) * g).sum() for a, b, g in zip(v, w, of_mixture, strict=True))
            w = move(w, numpy_oracle.gradient(w, x, y))
            v = move(v, [alpha * g for g in of_mixture])
            alpha = np.clip(alpha - RATE * slope, 0, 1) if learn else alpha
        return w, [*v, alpha]

    process = apfl.build_apfl(setup(apfl, model, local_epochs=EPOCHS, apfl_alpha=0.6, apfl_learn_alpha=learn))
    start = oracles.initial(model)
    states = assert_rounds_equal_numpy(process, rounds, start, [*start, np.float64(0.6)], of_a_client)
    assert (len({float(state[-1]) for state in states.values()}) == 3) == learn


def test_a_fixed_share_of_apfl_stays_what_it_is_under_weight_decay(model, rounds):
    decay = optimizers.OptimizerSpec("adamw", 0.01, {"weight_decay": 0.1})
    fixed = {"local_epochs": EPOCHS, "apfl_alpha": 0.6, "apfl_learn_alpha": False}
    process = apfl.build_apfl(setups.setup(apfl, model, client=decay, **fixed))
    _, kept = partial_models.run_rounds_with_states(process, rounds[:1])
    assert [state[-1] for state in kept.values()] == [np.float32(0.6)] * 2


def test_fed_babu_equals_numpy(two_layers):
    """FedAvg of U; V and b do not change by a bit."""
    rounds = [oracles.make_clients(9, 13, 1), oracles.make_clients(7, 10)]
    process = fed_babu.build_fed_babu(setup(fed_babu, two_layers, SMALL, local_epochs=EPOCHS))
    trained, _ = oracles.run_rounds(process, rounds)
    u, *head = oracles.initial(two_layers)
    velocity = np.zeros_like(u)
    for clients in rounds:
        ends = [partial_models.train([u, *head], *client, (0,), EPOCHS, SMALL)[0] for client in clients]
        sizes = [len(labels) for _, labels in clients]
        velocity = 0.9 * velocity + np.average([u - end for end in ends], axis=0, weights=sizes)
        u = u - velocity
    np.testing.assert_allclose(trained[0], u, atol=1e-5)
    for before, after in zip(two_layers.initial_weights[0][1:], trained[1:], strict=True):
        np.testing.assert_array_equal(before, after)


def test_fed_ala_equals_numpy(two_layers, rounds):
    """Shares of V and b are learnt on the first four fifths of a client, from its second round on."""
    rate = 20.0

    def of_a_client(theta, client, kept):
        phi, s, number = kept[:3], kept[3:5], kept[5]

        def start(s):
            mixed = [w * a + (1 - a) * v for a, w, v in zip(s, theta[1:], phi[1:], strict=True)]
            return [theta[0], *mixed]

        part = int(np.ceil(0.8 * len(client[1])))
        for _ in range((0, 3)[number] if number < 2 else 1):
            for x, y in batches((client[0][:part], client[1][:part]), -(-part // oracles.BATCH)):
                gradients = partial_models.gradient(start(s), x, y)[1:]
                slopes = [g * (w - v) for g, w, v in zip(gradients, theta[1:], phi[1:], strict=True)]
                s = [np.clip(a, 0, 1) for a in move(s, slopes, rate)]
        end = partial_models.train(start(s) if number else theta, *client, (0, 1, 2), EPOCHS, SMALL)
        return end, [*end, *s, number + 1]

    settings = {"local_epochs": EPOCHS, "ala_learning_rate": rate, "ala_first_epochs": 3}
    process = fed_ala.build_fed_ala(setup(fed_ala, two_layers, SMALL, **settings))
    start = oracles.initial(two_layers)
    at_first = [*start, *map(np.ones_like, start[1:]), 0]
    states = assert_rounds_equal_numpy(process, [*rounds, rounds[0]], start, at_first, of_a_client)
    assert (states["a"][3] < 0.99).any()
    assert states["a"][5] == 3


def test_fed_rod_equals_numpy(two_layers, rounds):
    """The generic predictor's loss is that of logits with log n_c added, as if to b; the head learns the rest."""

    def of_a_client(theta, client, p):
        counts = np.bincount(client[1], minlength=oracles.CLASSES)
        prior = np.log(np.maximum(counts, 1e-30))
        for x, y in of_epochs(client):
            u, v, b = theta
            of_p = numpy_oracle.gradient([v + p[0], b + p[1]], x @ u, y)
            theta = move(theta, partial_models.gradient([u, v, b + prior], x, y), SMALL)
            p = move(p, of_p, SMALL)
        return theta, p

    process = fed_rod.build_fed_rod(setup(fed_rod, two_layers, SMALL, local_epochs=EPOCHS))
    start = oracles.initial(two_layers)
    states = assert_rounds_equal_numpy(process, rounds, start, [0 * w for w in start[1:]], of_a_client)
    assert np.abs(states["a"][0] - states["b"][0]).max() > 1e-3
    theta, p = (tuple(map(np.float32, weights)) for weights in (start, states["a"]))
    images, _ = oracles.make_clients(4)[0]
    classifier, weights = process.personal(theta, p)
    x, (u, v, b) = numpy_oracle.flat(images), start
    logits = x @ u @ (v + p[0]) + b + p[1]
    np.testing.assert_allclose(classifier.logits(weights, images, None), logits, atol=1e-4)


def test_fed_proto_equals_numpy(two_layers, rounds):
    """Prototypes are means of x·U by class over the cohort's examples; the loss pulls x·U towards them."""
    start = oracles.initial(two_layers)
    prototypes, exists = np.zeros((oracles.CLASSES, partial_models.HIDDEN)), np.zeros(oracles.CLASSES, bool)
    kept = dict.fromkeys("abc", start)
    received = {}
    for cohort in rounds:
        sums, counts = np.zeros_like(prototypes), np.zeros(oracles.CLASSES)
        for name, client in cohort.items():
            phi = kept[name]
            for x, y in of_epochs(client):
                far = (x @ phi[0] - prototypes[y]) * exists[y, np.newaxis]
                pull = x.T @ (2 * far / far.size)
                of_u, *of_head = partial_models.gradient(phi, x, y)
                phi = move(phi, [of_u + STRENGTH * pull, *of_head], SMALL)
            h, own = numpy_oracle.flat(client[0]) @ phi[0], np.zeros_like(prototypes)
            for j in set(client[1]):
                own[j] = h[client[1] == j].mean(axis=0)
                sums[j] += h[client[1] == j].sum(axis=0)
            counts += np.bincount(client[1], minlength=oracles.CLASSES)
            kept[name] = phi
            received[name] = np.where(exists[:, np.newaxis], prototypes, own), exists | np.isin(range(5), client[1])
        new = counts > 0
        prototypes[new] = sums[new] / counts[new, np.newaxis]
        exists = exists | new

    settings = {"local_epochs": EPOCHS, "fed_proto_lambda": STRENGTH}
    process = fed_proto.build_fed_proto(setup(fed_proto, two_layers, SMALL, **settings))
    trained, states = partial_models.run_rounds_with_states(process, rounds)
    for ours, theirs in zip(trained, start, strict=True):
        np.testing.assert_array_equal(ours, np.float32(theirs))  # no weights are shared
    for name, state in states.items():
        *phi, own_prototypes, seen = state
        for ours, theirs in zip(phi, kept[name], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        np.testing.assert_allclose(own_prototypes, received[name][0], atol=1e-5)
        np.testing.assert_array_equal(seen, received[name][1])


def test_fed_proto_answers_with_the_nearest_prototype_that_exists(two_layers):
    process = fed_proto.build_fed_proto(setup(fed_proto, two_layers))
    phi = tuple(two_layers.initial_weights[0])
    images, _ = oracles.make_clients(7)[0]
    h = numpy_oracle.flat(images) @ phi[0]
    prototypes, seen = np.float32(h[[0, 1, 2, 3, 4]]), np.array([True, True, False, True, True])
    classifier, weights = process.personal(phi, (*phi, prototypes, seen))
    logits = classifier.logits(weights, images, None).numpy()
    squares = ((h[:, np.newaxis] - prototypes) ** 2).sum(axis=2)
    np.testing.assert_allclose(logits[:, seen], -squares[:, seen], atol=1e-4)
    assert logits.argmax(axis=1)[[0, 1, 3, 4]].tolist() == [0, 1, 3, 4]
    assert 2 not in logits.argmax(axis=1)


@pytest.mark.parametrize(("given", "alpha"), [(0.8, 0.8), (None, 2.0 / 4)])
def test_fed_amp_equals_numpy(model, rounds, given, alpha):
    """u_i = w_i + α Σ_j A'(‖w_i − w_j‖²)(w_j − w_i); local steps are pulled to u_i by λ/α."""
    attention = {"fed_amp_alpha": given, "fed_amp_lambda": 0.4, "fed_amp_sigma": 2.0, "clients_per_round": 4}
    start = oracles.initial(model)
    w, u = dict.fromkeys("abc", start), dict.fromkeys("abc", start)
    for cohort in rounds:
        for name, client in cohort.items():
            for x, y in of_epochs(client):
                pull = [0.4 / alpha * (a - b) for a, b in zip(w[name], u[name], strict=True)]
                gradients = [g + p for g, p in zip(numpy_oracle.gradient(w[name], x, y), pull, strict=True)]
                w[name] = move(w[name], gradients)
        for name in cohort:
            u[name] = w[name]
            for other in cohort:
                apart = [b - a for a, b in zip(w[name], w[other], strict=True)]
                weight = alpha * np.exp(-sum((d**2).sum() for d in apart) / 2.0) / 2.0
                u[name] = [a + weight * d for a, d in zip(u[name], apart, strict=True)]

    process = fed_amp.build_fed_amp(setup(fed_amp, model, local_epochs=EPOCHS, **attention))
    trained, states = partial_models.run_rounds_with_states(process, rounds)
    for ours, theirs in zip(trained, start, strict=True):
        np.testing.assert_array_equal(ours, np.float32(theirs))  # there is no global model
    for name, state in states.items():
        for ours, theirs in zip(state, [*w[name], *u[name]], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert max(np.abs(a - b).max() for a, b in zip(w["a"], u["a"], strict=True)) > 1e-3


def test_the_personal_model_is_made_of_what_a_client_keeps_and_of_the_global_one(model):
    w, v = (tuple(np.full_like(part, value) for part in model.initial_weights[0]) for value in (1.0, 3.0))
    for process, kept, value in (
        (ditto.build_ditto(setup(ditto, model)), v, 3.0),
        (p_fed_me.build_p_fed_me(setup(p_fed_me, model)), v, 3.0),
        (apfl.build_apfl(setup(apfl, model)), (*v, np.float32(0.25)), 1.5),
    ):
        classifier, weights = process.personal(w, kept)
        assert classifier is model
        for part in weights:
            np.testing.assert_array_equal(part, value)
