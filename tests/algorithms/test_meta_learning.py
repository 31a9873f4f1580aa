"""FOMAML, MAML, Per-FedAvg and Meta-SGD against NumPy, finite differences and each other."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from baselines import fed_sgd
from tests import numpy_oracle, setups
from tests.setups import BATCH
from tff_personalization import cohorts, local_training, schedules
from tff_personalization.algorithms import fed_avg, fomaml, maml, meta_learning, meta_sgd, per_fed_avg, reptile
from tff_personalization.models import emnist_cnn

CLASSES = 5
RATE = 0.2  # large for these images, to make second derivatives visible
SEED = np.array([3, 4], np.int32)


@pytest.fixture
def model():
    return emnist_cnn.build_linear(CLASSES, np.random.default_rng(0))


def make_clients(*sizes):
    """Clients whose labels follow from their images: 5 bars."""
    rng = np.random.default_rng(1)
    clients = []
    for size in sizes:
        labels = rng.integers(0, CLASSES, size).astype(np.int32)
        images = rng.integers(0, 30, (size, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[5 * label : 5 * label + 5] += 70
        clients.append((images.astype(np.uint8), labels))
    return clients


def setup(module, model, **settings):
    return setups.setup(module, model, **{"client": setups.sgd(RATE)} | settings)


def delta_of_round(process, clients, round_number=1):
    """θ before minus θ after one round, with plain SGD at rate 1 as server optimizer: the mean delta."""
    state = process.initialize()
    before = process.get_model_weights(state).trainable
    output = process.next(state, [cohorts.client_value(*client, SEED, round_number) for client in clients])
    after = process.get_model_weights(output.state).trainable
    return [b.astype(np.float64) - a for b, a in zip(before, after, strict=True)], output


def initial(model):
    return [w.astype(np.float64) for w in model.initial_weights[0]]


def plus(a, factor, b):
    return [x + factor * y for x, y in zip(a, b, strict=True)]


def assert_close(found, expected, atol=2e-6):
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f, e, atol=atol)


def distance(a, b):
    return max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))


def parts(client, query_fraction):
    """The support and query part that a client deals itself, x flattened."""
    examples = local_training.Examples(*(tf.constant(part) for part in client))
    seed = tf.random.split(SEED, 3)[0]
    return [
        (part.x.numpy(), part.y.numpy()) for part in meta_learning.support_and_query(examples, query_fraction, seed)
    ]


def numbered(count):
    return local_training.Examples(tf.range(count), tf.range(count))


@pytest.mark.parametrize(
    ("count", "fraction", "queries"), [(10, 0.5, 5), (10, 0.2, 2), (2, 0.9, 1), (3, 0.01, 1), (10, 1.0, 9)]
)
def test_support_and_query_part_the_examples_and_neither_is_empty(count, fraction, queries):
    support, query = meta_learning.support_and_query(numbered(count), fraction, tf.constant([1, 2]))
    assert len(query.y) == queries
    assert sorted([*support.y.numpy(), *query.y.numpy()]) == list(range(count))
    np.testing.assert_array_equal(support.x, support.y)


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.5), (0, 0.5), (7, 0.0)])
def test_examples_that_cannot_or_must_not_be_parted_are_both_parts(count, fraction):
    for part in meta_learning.support_and_query(numbered(count), fraction, tf.constant([1, 2])):
        assert sorted(part.y.numpy()) == list(range(count))


def test_parts_depend_only_on_the_seed():
    first, again, other = (
        meta_learning.support_and_query(numbered(30), 0.5, tf.constant(seed))[1].y.numpy().tolist()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    assert first == again != other


def test_a_drawn_batch_holds_different_examples_and_at_most_all():
    assert len(set(meta_learning.draw_batch(numbered(9), 4, tf.constant([1, 2])).y.numpy())) == 4
    assert sorted(meta_learning.draw_batch(numbered(3), 4, tf.constant([1, 2])).y.numpy()) == [0, 1, 2]


def test_the_gradient_in_batches_is_the_gradient_of_all_examples(model):
    ((images, labels),) = make_clients(11)
    training = local_training.LocalTraining(model, setups.sgd().build(), BATCH)
    theta = tuple(tf.constant(w) for w in model.initial_weights[0])
    found = training.gradient(theta, local_training.Examples(tf.constant(images), tf.constant(labels)), SEED)
    assert_close(found.gradients, numpy_oracle.gradient(initial(model), numpy_oracle.flat(images), labels))
    loss_sum, correct = local_training.evaluate(
        model, theta, local_training.Examples(tf.constant(images), tf.constant(labels))
    )
    assert float(found.loss_sum) == pytest.approx(float(loss_sum), rel=1e-5)
    assert int(found.correct) == int(correct)
    assert int(found.examples) == 11


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("query_fraction", [0.5, 0.0])
def test_a_fomaml_round_equals_numpy(model, query_fraction):
    clients, steps = make_clients(12, 3, 9, 1), 3
    process = fomaml.build_fomaml(setup(fomaml, model, local_steps=steps, query_fraction=query_fraction))
    found, output = delta_of_round(process, clients)
    expected, visits = [np.zeros_like(w) for w in initial(model)], 0
    for client in clients:
        support, query = parts(client, query_fraction)
        phi = numpy_oracle.local_sgd(initial(model), *support, RATE, BATCH, steps)[-1]
        gradient = numpy_oracle.gradient(phi, numpy_oracle.flat(query[0]), query[1])
        expected = plus(expected, RATE / len(clients), gradient)
        starts = range(0, len(support[1]), BATCH)
        visits += sum(min(BATCH, len(support[1]) - starts[i % len(starts)]) for i in range(steps)) + len(query[1])
    assert_close(found, expected)
    assert output.metrics["client_work"]["examples"] == visits
    assert output.metrics["client_work"]["clients"] == len(clients)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("method", ["fomaml", "maml"])
def test_with_a_schedule_the_rounds_rate_is_that_of_local_steps_and_of_the_meta_gradient(model, method):
    (client,) = make_clients(8)
    support, query = parts(client, 0.5)
    module, build = {"fomaml": (fomaml, fomaml.build_fomaml), "maml": (maml, maml.build_maml)}[method]
    schedule = schedules.Schedule("exponential", 0.5, warmup_rounds=2)
    scheduled = dataclasses.replace(setups.sgd(RATE), schedule=schedule)
    process = build(setup(module, model, client=scheduled, local_steps=1, query_fraction=0.5, rounds=9))
    for round_number, rate in ((1, RATE / 2), (3, RATE / 4)):
        found, _ = delta_of_round(process, [client], round_number)
        phi = numpy_oracle.local_sgd(initial(model), *support, rate, BATCH, 1)[-1]
        expected = numpy_oracle.gradient(phi, numpy_oracle.flat(query[0]), query[1])
        if method == "maml":
            product = numpy_oracle.hessian_product(initial(model), numpy_oracle.flat(support[0]), expected)
            expected = plus(expected, -rate, product)
        assert_close(found, [rate * part for part in expected])
        assert distance(found, [RATE * part for part in expected]) > 1e-3


@pytest.mark.usefixtures("worker")
def test_fed_avg_is_fed_sgd_plus_fomaml_of_every_number_of_steps_and_reptile_of_two_is_fed_sgd_plus_fomaml_of_one(
    model,
):
    """Section 2 of arXiv 1909.12488, with all of a client's data in every step."""
    clients, whole = make_clients(9, 6), {"batch_size": 16, "shuffle": True}
    terms = [delta_of_round(fed_sgd.build_fed_sgd(setup(fed_sgd, model, client_weighting="uniform")), clients)[0]]
    terms += [
        delta_of_round(fomaml.build_fomaml(setup(fomaml, model, local_steps=j, query_fraction=0.0, **whole)), clients)[
            0
        ]
        for j in (1, 2, 3)
    ]
    of_fed_avg, _ = delta_of_round(
        fed_avg.build_fed_avg(setup(fed_avg, model, local_epochs=4, client_weighting="uniform", **whole)), clients
    )
    of_reptile, _ = delta_of_round(reptile.build_reptile(setup(reptile, model, local_steps=2, **whole)), clients)
    assert_close(of_fed_avg, [sum(part) for part in zip(*terms, strict=True)], atol=1e-5)
    assert_close(of_reptile, plus(terms[0], 1, terms[1]), atol=1e-5)
    assert distance(terms[0], terms[1]) > 1e-3  # they are not the same term twice


def loss_after_adapting(theta, support, query, steps):
    """float64: the loss of φ(θ) on the query part, which MAML minimizes."""
    kernel, bias = numpy_oracle.local_sgd(theta, *support, RATE, BATCH, steps)[-1]
    logits = numpy_oracle.flat(query[0]) @ kernel + bias
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(logits)), query[1]].mean()


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("steps", [1, 3])
def test_mamls_delta_is_the_derivative_of_the_loss_after_adapting_by_finite_differences(model, steps):
    (client,) = make_clients(12)
    support, query = parts(client, 0.5)
    exact, _ = delta_of_round(maml.build_maml(setup(maml, model, local_steps=steps)), [client])
    first_order, _ = delta_of_round(fomaml.build_fomaml(setup(fomaml, model, local_steps=steps)), [client])
    theta, h = initial(model), 1e-5
    for i in range(2):
        for where in list(np.ndindex(theta[i].shape))[:: 7 if i == 0 else 1]:
            losses = []
            for sign in (1, -1):
                moved = [w.copy() for w in theta]
                moved[i][where] += sign * h
                losses.append(loss_after_adapting(moved, support, query, steps))
            assert exact[i][where] / RATE == pytest.approx((losses[0] - losses[1]) / (2 * h), abs=2e-6)
    assert distance(exact, first_order) > 1e-3 * RATE


@pytest.mark.usefixtures("worker")
def test_mamls_delta_of_one_step_has_the_hessian_in_closed_form(model):
    """β (I − β ∇²L(θ; support)) ∇L(φ; query)."""
    (client,) = make_clients(8)
    support, query = parts(client, 0.5)
    found, _ = delta_of_round(maml.build_maml(setup(maml, model, local_steps=1)), [client])
    phi = numpy_oracle.local_sgd(initial(model), *support, RATE, BATCH, 1)[-1]
    v = numpy_oracle.gradient(phi, numpy_oracle.flat(query[0]), query[1])
    product = numpy_oracle.hessian_product(initial(model), numpy_oracle.flat(support[0]), v)
    assert_close([d / RATE for d in found], plus(v, -RATE, product))


def cnn_loss_in_plain_tensorflow(weights, x, y):
    """The CNN without dropout, its pooling TensorFlow's own."""
    kernel_1, bias_1, kernel_2, bias_2, kernel_3, bias_3, kernel_4, bias_4 = weights
    h = tf.nn.relu(tf.nn.conv2d(tf.cast(x, tf.float32)[..., None] / 255, kernel_1, 1, "VALID") + bias_1)
    h = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(h, kernel_2, 1, "VALID") + bias_2), 2, 2, "VALID")
    h = tf.nn.relu(tf.reshape(h, [len(x), -1]) @ kernel_3 + bias_3)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, h @ kernel_4 + bias_4))


@pytest.mark.usefixtures("worker")
def test_mamls_delta_on_the_cnn_is_that_of_nested_tapes_over_plain_tensorflow():
    """Finite differences do not work here: where a ReLU switches, the result of the local steps jumps."""
    model, steps, rate = emnist_cnn.build_cnn(CLASSES, np.random.default_rng(0), dropout=False), 3, 0.03
    (client,) = make_clients(16)
    found, _ = delta_of_round(maml.build_maml(setup(maml, model, client=setups.sgd(rate), local_steps=steps)), [client])
    found = [d / rate for d in found]
    support, query = parts(client, 0.5)
    theta = tuple(tf.constant(w) for w in model.initial_weights[0])
    with tf.GradientTape() as outer:
        outer.watch(theta)
        phi = theta
        for step in range(steps):
            batch = slice(BATCH * (step % 2), BATCH * (step % 2) + BATCH)
            with tf.GradientTape() as inner:
                inner.watch(phi)
                loss = cnn_loss_in_plain_tensorflow(phi, support[0][batch], support[1][batch])
            phi = tuple(w - rate * g for w, g in zip(phi, inner.gradient(loss, phi), strict=True))
        loss = cnn_loss_in_plain_tensorflow(phi, *query)
    expected, first_order = outer.gradient(loss, [theta, phi])
    scale = distance([g.numpy() for g in expected], [0] * 8)
    assert_close(found, expected, atol=1e-4 * scale)
    assert distance([g.numpy() for g in expected], [g.numpy() for g in first_order]) > 0.03 * scale


def per_fed_avg_in_numpy(weights, client, alpha, beta, steps, correction):
    """Per-FedAvg's weights after `steps` local steps; `correction(w, v, x, y)` gives the Hessian's product."""
    x, y = numpy_oracle.flat(client[0]), client[1]
    draws_seed = tf.random.split(SEED)[1]
    for step in range(steps):
        first = slice(BATCH * step % len(y), BATCH * step % len(y) + BATCH)
        seeds = tf.random.split(tf.random.fold_in(draws_seed, step), 4)
        second, third = (meta_learning.draw_batch(numbered(len(y)), BATCH, seeds[i]).y.numpy() for i in (0, 1))
        inner = plus(weights, -alpha, numpy_oracle.gradient(weights, x[first], y[first]))
        v = numpy_oracle.gradient(inner, x[second], y[second])
        weights = plus(weights, -beta, plus(v, -alpha, correction(weights, v, x[third], y[third])))
    return weights


def per_fed_avg_round(model, clients, steps, hessian_delta, alpha=RATE, beta=0.1):
    settings = {"local_steps": steps, "inner_learning_rate": alpha, "hessian_delta": hessian_delta}
    process = per_fed_avg.build_per_fed_avg(setup(per_fed_avg, model, client=setups.sgd(beta), **settings))
    return delta_of_round(process, clients)


@pytest.mark.usefixtures("worker")
def test_per_fed_avg_equals_numpy_in_both_variants(model):
    clients, steps, alpha, beta = make_clients(12, 8), 5, RATE, 0.1
    corrections = {
        0.0: lambda w, v, x, y: [0, 0],
        0.1: lambda w, v, x, y: [
            (a - b) / 0.2
            for a, b in zip(
                numpy_oracle.gradient(plus(w, 0.1, v), x, y), numpy_oracle.gradient(plus(w, -0.1, v), x, y), strict=True
            )
        ],
    }
    expected = {}
    for hessian_delta, correction in corrections.items():
        ends = [per_fed_avg_in_numpy(initial(model), c, alpha, beta, steps, correction) for c in clients]
        expected[hessian_delta] = plus(initial(model), -1, [(a + b) / 2 for a, b in zip(*ends, strict=True)])
        found, output = per_fed_avg_round(model, clients, steps, hessian_delta)
        assert_close(found, expected[hessian_delta], atol=1e-5)
        # Both clients fill the batches: D counts as a visit; D′, and twice D″ if there is a correction, as an extra.
        measured, visits = output.metrics["client_work"], 2 * steps * BATCH
        assert (measured["examples"], measured["extra_examples"]) == (visits, (3 if hessian_delta else 1) * visits)
    assert distance(*expected.values()) > 1e-3


@pytest.mark.usefixtures("worker")
def test_per_fed_avgs_difference_of_gradients_nears_the_hessian_as_delta_falls(model):
    (client,) = make_clients(12)
    hessian = lambda w, v, x, y: numpy_oracle.hessian_product(w, x, v)  # noqa: E731
    exact = plus(initial(model), -1, per_fed_avg_in_numpy(initial(model), client, RATE, 0.1, 3, hessian))
    far, nearer, near, default = (
        distance(per_fed_avg_round(model, [client], 3, delta)[0], exact) for delta in (0.08, 0.04, 0.01, 1e-3)
    )
    assert far > 3 * nearer > 30 * near  # the error of a central difference falls with δ²
    assert default < 1e-5 < 0.1 * far


@pytest.mark.usefixtures("worker")
def test_meta_sgd_with_its_first_rates_moves_the_model_as_maml_does(model):
    clients, settings = make_clients(12, 7), {"local_steps": 3, "shuffle": True}
    start = setups.setup(meta_sgd, model, inner_learning_rate=RATE, **settings)
    of_meta_sgd, _ = delta_of_round(meta_sgd.build_meta_sgd(start), clients)
    of_maml, _ = delta_of_round(maml.build_maml(setup(maml, model, **settings)), clients)
    assert len(of_meta_sgd) == 2 * len(of_maml)
    assert_close(of_meta_sgd[:2], of_maml)


@pytest.mark.usefixtures("worker")
def test_two_rounds_of_meta_sgd_equal_numpy_in_weights_and_rates(model):
    """One inner step: the gradient of the rates is −∇L(φ; query) ∘ ∇L(θ; support); the second round uses the rates."""
    (client,) = make_clients(8)
    process = meta_sgd.build_meta_sgd(
        setups.setup(meta_sgd, model, server=setups.sgd(2.0), local_steps=1, inner_learning_rate=RATE)
    )
    (images, labels), query = parts(client, 0.5)
    x = numpy_oracle.flat(images)
    theta, rates = initial(model), [np.full_like(w, RATE) for w in initial(model)]
    state = process.initialize()
    for _ in range(2):
        state = process.next(state, [cohorts.client_value(*client, SEED)]).state
        gradient = numpy_oracle.gradient(theta, x, labels)
        phi = [w - a * g for w, a, g in zip(theta, rates, gradient, strict=True)]
        v = numpy_oracle.gradient(phi, numpy_oracle.flat(query[0]), query[1])
        product = numpy_oracle.hessian_product(theta, x, [a * d for a, d in zip(rates, v, strict=True)])
        theta = plus(theta, -2 * RATE, plus(v, -1, product))
        rates = plus(rates, 2 * RATE, [d * g for d, g in zip(v, gradient, strict=True)])
        assert_close(process.get_model_weights(state).trainable, [*theta, *rates], atol=1e-5)
    assert distance(rates, [RATE, RATE]) > 1e-3
