"""Strategies against a few lines of NumPy, on softmax regression."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import numpy_oracle
from tests.personalization.softmax_regression import (
    BATCH,
    EPOCHS,
    RATE,
    SEED,
    SGD,
    VALUES,
    assert_curve,
    batches,
    initial,
    judge,
    measure,
    part,
    probabilities,
)
from tff_personalization import global_weights, local_training
from tff_personalization.models import char_lstm, characters, functional
from tff_personalization.personalization import adaptation
from tff_personalization.personalization.strategies import STRATEGIES


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
    # η λ = 1: each step first returns to the start.
    losses, _ = measure("ditto", model, train, test, ditto_lambda=1 / RATE, epochs=9)
    free, _ = measure("fine_tune", model, train, test, epochs=9)
    assert abs(losses[-1] - losses[0]) < 0.2 * abs(free[-1] - free[0])


def p_fed_me_in_numpy(w, x, y, strength, steps, theta=None):
    theta = w if theta is None else theta
    for _ in range(steps):
        gradient = numpy_oracle.gradient(theta, x, y)
        theta = [t - RATE * (g + strength * (t - a)) for t, g, a in zip(theta, gradient, w, strict=True)]
    return theta


def test_p_fed_me_solves_the_inner_problem_of_each_batch_and_moves_towards_the_solution(model):
    train, test = part(10, 1), part(40, 2)
    strength, steps, rate = (VALUES[f"p_fed_me_{name}"] for name in ("lambda", "steps", "learning_rate"))
    w, theta, models = initial(model), initial(model), [initial(model)]
    for epoch in range(EPOCHS):
        for x, y in batches(train, epoch):
            theta = p_fed_me_in_numpy(w, x, y, strength, steps, theta)
            w = [a - rate * strength * (a - t) for a, t in zip(w, theta, strict=True)]
        models.append(theta)
    assert_curve(measure("p_fed_me", model, train, test), models, test)


def test_p_fed_me_with_enough_steps_is_where_the_gradient_of_the_inner_objective_vanishes(model):
    """For one batch, f_i(θ) + λ/2 ‖θ − w‖² is strongly convex: the curve ends at its only minimum."""
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


def test_p_fed_me_moves_by_the_share_of_its_authors_in_a_batch():
    """They take λ = 15 and η = 0.005."""
    settings = STRATEGIES["p_fed_me"].settings()
    assert settings.p_fed_me_lambda * settings.p_fed_me_learning_rate == pytest.approx(0.075)


def apfl_in_numpy(model, train, alpha, learn, rate=RATE):
    v, theta, models = initial(model), initial(model), [initial(model)]

    def mixture(v, alpha):
        return [alpha * a + (1 - alpha) * w for a, w in zip(v, theta, strict=True)]

    alphas = [alpha]
    for epoch in range(EPOCHS):
        for x, y in batches(train, epoch):
            gradient = numpy_oracle.gradient(mixture(v, alpha), x, y)
            slope = sum(((a - w) * g).sum() for a, w, g in zip(v, theta, gradient, strict=True))
            v = [a - rate * alpha * g for a, g in zip(v, gradient, strict=True)]
            alpha = min(max(alpha - rate * slope * learn, 0), 1)
            alphas.append(alpha)
        models.append(mixture(v, alpha))
    return models, alphas


@pytest.mark.parametrize("learn", [True, False], ids=["learnt", "fixed"])
def test_apfl_judges_the_mixture_and_learns_its_share_along_the_gradient(model, learn):
    train, test = part(10, 1), part(40, 2)
    models, alphas = apfl_in_numpy(model, train, VALUES["apfl_alpha"], learn)
    assert all(0 < alpha < 1 for alpha in alphas)
    assert (abs(alphas[-1] - alphas[0]) > 1e-3) == learn
    assert_curve(measure("apfl", model, train, test, apfl_learn_alpha=learn), models, test)


def test_apfl_comes_back_from_a_share_of_one(model):
    """A step takes α from below 1 to above it, where it is projected to 1, and later ones make it less again."""
    train, test, rate = part(10, 3), part(40, 2), 0.05
    models, alphas = apfl_in_numpy(model, train, 1.0, learn=True, rate=rate)
    assert alphas[2] < alphas[3] == 1
    assert alphas[-1] < 0.8
    optimizer = tff.learning.optimizers.build_sgdm(rate)
    assert_curve(measure("apfl", model, train, test, optimizer=optimizer, apfl_alpha=1.0), models, test)


def test_apfl_with_a_share_of_one_is_fine_tuning(model):
    train, test = part(10, 1), part(40, 2)
    mixture, tuned = (
        measure(name, model, train, test, apfl_alpha=1.0, apfl_learn_alpha=False) for name in ("apfl", "fine_tune")
    )
    np.testing.assert_allclose(mixture[0], tuned[0], rtol=1e-5)


def by_character(rng):
    """Predicts the next character from the last one: the interface of a text model without an LSTM's long graph."""
    classes = len(characters.CLASSES)
    weights = functional.glorot_uniform(rng, classes, 4), functional.glorot_uniform(rng, 4, classes)
    return functional.SeededModel(
        (*weights, np.zeros(classes, np.float32)),
        lambda weights, x: tf.gather(weights[0], tf.cast(x, tf.int32)),
        lambda weights, h, seed: tf.einsum("sth,hc->stc", h, weights[1]) + weights[2],
        stem_size=1,
        head_size=2,
        x_spec=char_lstm.SEQUENCES,
        y_spec=char_lstm.NEXT_CHARACTER.y_spec,
        scoring=char_lstm.NEXT_CHARACTER.scoring,
    )


@pytest.mark.parametrize("name", [name for name, strategy in STRATEGIES.items() if not strategy.one_label])
def test_strategies_adapt_a_text_model_and_without_text_do_not_change_it(name):
    model = by_character(np.random.default_rng(0))
    x, y = characters.to_sequences([b"to be, or not to be, that is the question" * 4] * 4)
    # The weights after θ are the learning rates of meta_sgd, and a second model of best_cluster.
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
