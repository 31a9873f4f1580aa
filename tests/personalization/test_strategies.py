"""Strategies against a few lines of NumPy, on softmax regression."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import numpy_oracle
from tff_personalization import global_weights, local_training
from tff_personalization.models import char_lstm, characters, emnist_cnn
from tff_personalization.personalization import adaptation, early_stopping
from tff_personalization.personalization.strategies import STRATEGIES

CLASSES, RATE, BATCH, EPOCHS = 5, 0.02, 4, 3
SEED = np.array([3, 4], np.int32)
SGD = tff.learning.optimizers.build_sgdm(RATE)
VALUES = {
    "fine_tune_adam_learning_rate": 0.01,
    "head_epochs": 2,
    "early_stopping_fraction": 0.25,
    "ditto_lambda": 0.7,
    "p_fed_me_lambda": 2.0,
    "p_fed_me_steps": 3,
    "p_fed_me_learning_rate": 0.3,
    "apfl_alpha": 0.4,
    "apfl_learn_alpha": True,
    "knn_neighbours": 3,
    "knn_lambda": 0.6,
}


@pytest.fixture
def model():
    return emnist_cnn.build_linear(CLASSES, np.random.default_rng(0))


def part(size, seed):
    """Random images; the labels are such that softmax regression has something to learn."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, size).astype(np.int32)
    images = rng.integers(0, 160, (size, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[5 * label : 5 * label + 5] += 40
    return images.astype(np.uint8), labels


def a_client(model, train, test):
    weights = global_weights.GlobalWeights(tuple(tf.constant(w) for w in model.initial_weights[0]))
    examples = (local_training.Examples(*map(tf.constant, arrays)) for arrays in (train, test))
    return adaptation.Client(model, weights, *examples, tf.constant(SEED))


def measure(strategy, model, train, test, epochs=EPOCHS, batch_size=BATCH, **values):
    """The strategy's curve, as (mean loss, right answers), each of shape (epochs + 1,)."""
    tuning = adaptation.Tuning(SGD, epochs, batch_size, STRATEGIES[strategy].settings.read(VALUES | values))
    run = tf.function(lambda: STRATEGIES[strategy].curve(a_client(model, train, test), tuning), autograph=False)
    loss_sum, correct = run()
    return loss_sum.numpy() / len(test[1]), correct.numpy()


def initial(model):
    return [w.astype(np.float64) for w in model.initial_weights[0]]


def probabilities(weights, images):
    logits = numpy_oracle.flat(images) @ weights[0] + weights[1]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def judge(p, labels):
    """Mean loss and right answers of the probabilities `p`."""
    return -np.log(p[np.arange(len(labels)), labels]).mean(), (p.argmax(axis=1) == labels).sum()


def batches(train, epoch, batch_size=BATCH):
    """The batches of an epoch, in the order in which the seed shuffles the examples."""
    count = len(train[1])
    order = tf.random.experimental.stateless_shuffle(tf.range(count), tf.random.fold_in(SEED, -1 - epoch)).numpy()
    for start in range(0, count, batch_size):
        batch = order[start : start + batch_size]
        yield numpy_oracle.flat(train[0][batch]), train[1][batch]


def assert_curve(measured, models, test):
    """The curve is the judgement of the weights in `models`, one for each epoch."""
    expected = [judge(probabilities(weights, test[0]), test[1]) for weights in models]
    np.testing.assert_allclose(measured[0], [loss for loss, _ in expected], rtol=1e-4)
    np.testing.assert_array_equal(measured[1], [correct for _, correct in expected])


def test_ditto_adds_the_pull_back_to_the_global_model_to_each_gradient(model):
    train, test, strength = part(10, 1), part(40, 2), VALUES["ditto_lambda"]
    models = [initial(model)]
    for epoch in range(EPOCHS):
        v = models[-1]
        for x, y in batches(train, epoch):
            pulls = [strength * (a - w) for a, w in zip(v, initial(model), strict=True)]
            v = [a - RATE * (g + p) for a, g, p in zip(v, numpy_oracle.gradient(v, x, y), pulls, strict=True)]
        models.append(v)
    assert_curve(measure("ditto", model, train, test), models, test)


def test_ditto_without_a_pull_is_fine_tuning_and_with_a_strong_one_the_global_model(model):
    train, test = part(10, 1), part(40, 2)
    for a, b in zip(
        measure("ditto", model, train, test, ditto_lambda=0.0), measure("fine_tune", model, train, test), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    # η λ = 1: each step begins by going all the way back.
    losses, _ = measure("ditto", model, train, test, ditto_lambda=1 / RATE, epochs=9)
    free, _ = measure("fine_tune", model, train, test, epochs=9)
    assert abs(losses[-1] - losses[0]) < 0.2 * abs(free[-1] - free[0])


def p_fed_me_in_numpy(w, x, y, strength, steps):
    theta = w
    for _ in range(steps):
        gradient = numpy_oracle.gradient(theta, x, y)
        theta = [t - RATE * (g + strength * (t - a)) for t, g, a in zip(theta, gradient, w, strict=True)]
    return theta


def test_p_fed_me_solves_the_inner_problem_of_each_batch_and_moves_towards_the_solution(model):
    train, test = part(10, 1), part(40, 2)
    strength, steps, rate = (VALUES[f"p_fed_me_{name}"] for name in ("lambda", "steps", "learning_rate"))
    w, models = initial(model), [initial(model)]
    for epoch in range(EPOCHS):
        for x, y in batches(train, epoch):
            theta = p_fed_me_in_numpy(w, x, y, strength, steps)
            w = [a - rate * strength * (a - t) for a, t in zip(w, theta, strict=True)]
        models.append(theta)
    assert_curve(measure("p_fed_me", model, train, test), models, test)


def test_p_fed_me_with_enough_steps_is_where_the_gradient_of_the_inner_objective_vanishes(model):
    """Of one batch, f_i(θ) + λ/2 ‖θ − w‖² is strongly convex: the curve's end is its one minimum."""
    train, test, strength = part(10, 1), part(40, 2), 2.0
    w = initial(model)
    x, y = numpy_oracle.flat(train[0]), train[1]
    solution = p_fed_me_in_numpy(w, x, y, strength, 400)
    gradient = [
        g + strength * (t - a) for g, t, a in zip(numpy_oracle.gradient(solution, x, y), solution, w, strict=True)
    ]
    assert max(np.abs(g).max() for g in gradient) < 1e-10
    measured = measure("p_fed_me", model, train, test, epochs=1, batch_size=10, p_fed_me_steps=400)
    assert_curve(measured, [w, solution], test)
    too_few = measure("p_fed_me", model, train, test, epochs=1, batch_size=10, p_fed_me_steps=1)
    assert abs(too_few[0][1] - measured[0][1]) > 1e-3


def apfl_in_numpy(model, train, alpha, learn):
    v, theta, models = initial(model), initial(model), [initial(model)]

    def mixture(v, alpha):
        return [alpha * a + (1 - alpha) * w for a, w in zip(v, theta, strict=True)]

    alphas = [alpha]
    for epoch in range(EPOCHS):
        for x, y in batches(train, epoch):
            gradient = numpy_oracle.gradient(mixture(v, alpha), x, y)
            slope = sum(((a - w) * g).sum() for a, w, g in zip(v, theta, gradient, strict=True))
            v = [a - RATE * alpha * g for a, g in zip(v, gradient, strict=True)]
            alpha -= RATE * slope * learn
        models.append(mixture(v, alpha))
        alphas.append(alpha)
    return models, alphas


@pytest.mark.parametrize("learn", [True, False], ids=["learnt", "fixed"])
def test_apfl_judges_the_mixture_and_learns_its_share_along_the_gradient(model, learn):
    train, test = part(10, 1), part(40, 2)
    models, alphas = apfl_in_numpy(model, train, VALUES["apfl_alpha"], learn)
    assert all(0 < alpha < 1 for alpha in alphas)
    assert (abs(alphas[-1] - alphas[0]) > 1e-3) == learn
    assert_curve(measure("apfl", model, train, test, apfl_learn_alpha=learn), models, test)


def test_apfl_with_a_share_of_one_is_fine_tuning(model):
    train, test = part(10, 1), part(40, 2)
    mixture, tuned = (
        measure(name, model, train, test, apfl_alpha=1.0, apfl_learn_alpha=False) for name in ("apfl", "fine_tune")
    )
    np.testing.assert_allclose(mixture[0], tuned[0], rtol=1e-5)


def knn_in_numpy(weights, train, test, neighbours, share):
    phi, memory = numpy_oracle.flat(test[0]), numpy_oracle.flat(train[0])
    p = probabilities(weights, test[0])
    for i, h in enumerate(phi):
        distances = np.sqrt(((memory - h) ** 2).sum(axis=1))
        vote = np.zeros(CLASSES)
        for j in np.argsort(distances)[:neighbours]:
            vote[train[1][j]] += np.exp(-distances[j])
        p[i] = share * vote / vote.sum() + (1 - share) * p[i]
    return p


@pytest.mark.parametrize("train_size", [12, 2], ids=["enough", "fewer than k"])
def test_knn_per_mixes_the_models_probabilities_with_a_vote_of_the_nearest(model, train_size):
    train, test = part(train_size, 1), part(40, 2)
    losses, corrects = measure("knn_per", model, train, test)
    before = judge(probabilities(initial(model), test[0]), test[1])
    after = judge(knn_in_numpy(initial(model), train, test, 3, 0.6), test[1])
    np.testing.assert_allclose(losses, [before[0]] + [after[0]] * EPOCHS, rtol=1e-4)
    np.testing.assert_array_equal(corrects, [before[1]] + [after[1]] * EPOCHS)
    assert before[1] != after[1]


def test_knn_per_sees_what_the_last_layer_is_given():
    """On the CNN: only the vote, by the activations of its dense layer, computed by Keras' layers."""
    model = emnist_cnn.build_cnn(CLASSES, np.random.default_rng(0))
    train, test = part(12, 1), part(30, 2)
    layers = [
        tf.keras.layers.Conv2D(32, 3, activation="relu", input_shape=(28, 28, 1)),
        tf.keras.layers.Conv2D(64, 3, activation="relu"),
        tf.keras.layers.MaxPool2D(),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(128, activation="relu"),
    ]
    keras = tf.keras.Sequential(layers)
    keras.set_weights(model.initial_weights[0][:-2])
    phi, memory = (keras(images[..., None] / np.float32(255)).numpy() for images, _ in (test, train))
    nearest = ((phi[:, None] - memory) ** 2).sum(axis=2).argmin(axis=1)
    _, corrects = measure("knn_per", model, train, test, knn_lambda=1.0, knn_neighbours=1)
    assert corrects[1] == (train[1][nearest] == test[1]).sum()


def test_knn_per_without_a_share_of_the_vote_is_the_global_model(model):
    losses, _ = measure("knn_per", model, part(12, 1), part(40, 2), knn_lambda=0.0)
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def best_in_python(correct, loss):
    return [min(range(e + 1), key=lambda i: (-correct[i], loss[i], i)) for e in range(len(correct))]


def test_early_stopping_takes_the_most_right_answers_then_the_least_loss_then_the_first():
    cases = [
        ([3, 2, 4, 4, 1], [1.0, 2.0, 3.0, 2.5, 0.1], [0, 0, 2, 3, 3]),
        ([0, 0, 0], [0.0, 0.0, 0.0], [0, 0, 0]),  # nothing was held back
        ([5, 5, 5], [1.0, np.nan, 0.5], [0, 0, 2]),
        ([1, 1, 2], [np.inf, 3.0, 9.0], [0, 1, 2]),
    ]
    rng = np.random.default_rng(0)
    for _ in range(50):
        correct, loss = rng.integers(0, 3, 7), rng.integers(0, 3, 7).astype(float)
        cases.append((correct, loss, best_in_python(correct, loss)))
    for correct, loss, expected in cases:
        best = early_stopping.best_so_far(tf.constant(correct, tf.int32), tf.constant(loss, tf.float32))
        np.testing.assert_array_equal(best, expected)


def test_early_stopping_follows_the_examples_that_the_client_holds_back(model):
    """The slice is the first quarter of a permutation; fine-tuning sees the rest; the curve is the best so far."""
    images, labels = part(22, 1)
    labels[::3] = (labels[::3] + 1) % CLASSES  # some labels are wrong, so that epochs differ in what they are good for
    order = tf.random.experimental.stateless_shuffle(tf.range(22), tf.random.fold_in(SEED, tf.int32.min)).numpy()
    held, rest = ((images[places], labels[places]) for places in (order[:5], order[5:]))
    test = part(40, 2)
    losses, corrects = measure("fine_tune", model, rest, test, epochs=8)
    held_losses, held_corrects = measure("fine_tune", model, rest, held, epochs=8)
    best = best_in_python(held_corrects, held_losses)
    assert len(set(best)) > 2
    stopped = measure("fine_tune_early_stopping", model, (images, labels), test, epochs=8)
    np.testing.assert_array_equal(stopped[1], corrects[best])
    np.testing.assert_allclose(stopped[0], losses[best], rtol=1e-5)


def test_a_client_too_small_to_hold_anything_back_keeps_the_global_model(model):
    def keeps_it(size, seed):
        losses, _ = measure("fine_tune_early_stopping", model, part(size, seed), part(40, 2))
        return len(set(losses)) == 1

    assert keeps_it(3, 1)  # a quarter of 3 is less than one example
    assert not all(keeps_it(4, seed) for seed in (2, 3, 4))


def test_fine_tuning_of_biases_changes_biases_alone(model):
    """Softmax regression with its kernel as it is, and only the bias going downhill."""
    train, test = part(10, 1), part(40, 2)
    models = [initial(model)]
    for epoch in range(EPOCHS):
        kernel, bias = models[-1]
        for x, y in batches(train, epoch):
            bias = bias - RATE * numpy_oracle.gradient([kernel, bias], x, y)[1]
        models.append([kernel, bias])
    assert_curve(measure("fine_tune_biases", model, train, test), models, test)


def test_the_biases_of_the_cnn_are_its_four_vectors(monkeypatch):
    model = emnist_cnn.build_cnn(CLASSES, np.random.default_rng(0))
    seen = []
    steps = local_training.LocalTraining.steps

    def spy(self, state, *arguments):
        seen.append([w.shape.as_list() for w in state.weights])
        return steps(self, state, *arguments)

    monkeypatch.setattr(local_training.LocalTraining, "steps", spy)
    losses, _ = measure("fine_tune_biases", model, part(10, 1), part(20, 2), epochs=1)
    assert seen[0] == [[32], [64], [128], [CLASSES]]
    assert losses[1] != losses[0]


def test_fine_tuning_with_adam_takes_adams_steps_whatever_the_personalization_optimizer_is(model):
    train, test, rate = part(10, 1), part(40, 2), VALUES["fine_tune_adam_learning_rate"]
    weights, models, step = initial(model), [initial(model)], 0
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for epoch in range(EPOCHS):
        for x, y in batches(train, epoch):
            step += 1
            gradient = numpy_oracle.gradient(weights, x, y)
            m = [0.9 * a + 0.1 * g for a, g in zip(m, gradient, strict=True)]
            v = [0.999 * a + 0.001 * g**2 for a, g in zip(v, gradient, strict=True)]
            scale = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            weights = [w - scale * a / (np.sqrt(b) + 1e-7) for w, a, b in zip(weights, m, v, strict=True)]
        models.append(weights)
    assert_curve(measure("fine_tune_adam", model, train, test), models, test)


@pytest.mark.parametrize("name", [name for name, strategy in STRATEGIES.items() if not strategy.one_label])
def test_strategies_that_are_not_refused_adapt_a_text_model_and_without_text_leave_it_alone(name):
    model = char_lstm.build_char_lstm(len(characters.CLASSES), np.random.default_rng(0), embedding=3, units=4)
    x, y = characters.to_sequences([b"to be, or not to be, that is the question" * 4] * 4)
    # What follows θ serves as the learning rates of meta_sgd, and as a second model of best_cluster.
    theta = model.initial_weights[0]
    added = tuple(np.full_like(w, RATE) for w in theta)
    tuning = adaptation.Tuning(SGD, 1, BATCH, STRATEGIES[name].settings.read(VALUES))

    @tf.function(input_signature=[char_lstm.SEQUENCES, char_lstm.NEXT_CHARACTER.y_spec], autograph=False)
    def curve(x, y):
        test = local_training.Examples(tf.constant(x_test), tf.constant(y_test))
        weights = global_weights.GlobalWeights(theta, STRATEGIES[name].needs, (added,))
        weights = weights.like([tf.constant(w) for w in weights.flat])
        client = adaptation.Client(model, weights, local_training.Examples(x, y), test, tf.constant(SEED))
        return STRATEGIES[name].curve(client, tuning)

    x_test, y_test = x[:2], y[:2]
    losses, corrects = curve(x, y)
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]
    assert losses.shape == corrects.shape == (2,)
    losses, _ = curve(x[:0], y[:0])
    assert losses[1] == losses[0]


@pytest.mark.parametrize(
    "strategy", [name for name, strategy in STRATEGIES.items() if strategy.gives_weights and not strategy.needs]
)
def test_the_weights_that_a_strategy_gives_are_those_that_its_evaluation_judges_last(model, strategy):
    train, test = part(22, 1), part(40, 2)
    tuning = adaptation.Tuning(SGD, EPOCHS, BATCH, STRATEGIES[strategy].settings.read(VALUES))
    theta = global_weights.GlobalWeights(tuple(tf.constant(w) for w in model.initial_weights[0]))
    examples = local_training.Examples(*map(tf.constant, train))
    weights = tf.function(
        lambda: adaptation.adapted_weights(STRATEGIES[strategy], model, theta, examples, tf.constant(SEED), tuning),
        autograph=False,
    )()
    losses, corrects = measure(strategy, model, train, test)
    loss, correct = judge(probabilities([w.numpy().astype(np.float64) for w in weights], test[0]), test[1])
    np.testing.assert_allclose(loss, losses[-1], rtol=1e-4)
    assert correct == corrects[-1]
