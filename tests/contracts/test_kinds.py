"""Methods and strategies do not depend on what a task predicts or on how many inputs it has: the loss decides.

A task with one class for each example and one input gets the loss of a regression with several named inputs. So a
client's work must be the same in both. It is computed without TFF, which is the same for all tasks.
"""

import dataclasses
import inspect
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tests import setups
from tests.personalization import softmax_regression
from tff_personalization import global_weights, local_training, methods, metrics
from tff_personalization.algorithms import client_work, method, stateful_clients
from tff_personalization.models import named_inputs, outputs
from tff_personalization.personalization import adaptation
from tff_personalization.personalization.strategies import STRATEGIES
from tff_personalization.tasks import registry, sources

NAMES = ("a", "b", "c")
CAPPED = metrics.Metric("capped error", higher_is_better=False, largest=1.0)
SETTINGS = {"client": setups.sgd(), "server": setups.sgd(1.0), "base": setups.sgd(momentum=0.9), "batch_size": 3}
SETTINGS |= {"local_epochs": 1, "local_steps": 2, "head_epochs": 1, "clusters": 2, "pooled_examples_per_round": 5}
# fed_proto and fed_rod need one class for each example.
METHODS = [name for name in methods.METHODS if methods.get(name).trains and name not in ("fed_proto", "fed_rod")]

rng = np.random.default_rng(2)
X = {"left": rng.normal(size=(5, 3)).astype(np.float32), "right": rng.integers(0, 3, (5, 1))}
CLASSES = np.array([0, 2, 1, 1, 0], np.int32)
NUMBERS = np.eye(3, dtype=np.float32)[CLASSES]


def sum_capped(values, numbers):
    return tf.reduce_sum(tf.minimum(tf.abs(values - numbers), 1.0))


def network(inputs, joined):
    layers = tf.keras.layers
    hidden = layers.LayerNormalization()(layers.Dense(4)(joined))  # which fed_bn needs
    return tf.keras.Model(inputs, layers.Dense(len(NAMES))(hidden))


def of_one_input(count, rng):
    x = tf.keras.Input([4])
    return network(x, x)


def of_named_inputs(count, rng):
    inputs = [tf.keras.Input([3], name="left"), tf.keras.Input([1], name="right")]
    return network(inputs, tf.keras.layers.Concatenate()(inputs))


@pytest.fixture(scope="module")
def tasks():
    """Two models of the task with classes, and its labels; then those of the regression."""

    def models(predicts, score, features, build):
        task = registry.Task(predicts.judged_by(CAPPED, score), features, {"net": build}, sources.own(none=dict))
        return [task.build("net", np.random.default_rng(seed)) for seed in (0, 1)]

    regression, classes = outputs.real_numbers(NAMES, within=1), outputs.classes(NAMES)

    def of_one_hot(function):
        return lambda logits, labels: function(logits, tf.one_hot(labels, len(NAMES)))

    scoring = classes.scoring._replace(loss=of_one_hot(regression.scoring.loss))
    classes = dataclasses.replace(classes, scoring=scoring)
    named = {name: tf.TensorSpec(x.shape[1:], tf.float32) for name, x in X.items()}
    return (
        (models(classes, of_one_hot(sum_capped), tf.TensorSpec([4]), of_one_input), CLASSES),
        (models(regression, sum_capped, named, of_named_inputs), NUMBERS),
    )


def examples(labels):
    return local_training.Examples(tf.constant(named_inputs.pack(X)), tf.constant(labels))


class Built(Exception):
    """Ends the building of a process before TFF takes part."""


def update_of(name, models, labels):
    """A client's update in the method's first stage."""
    chosen, (model, other) = methods.get(name), models
    settings = chosen.settings(**{key: value for key, value in SETTINGS.items() if key in chosen.settings.parts()})
    setup = method.RunSetup(
        model, settings, train_data=None, train_clients=("x",), seed=1, build_model=lambda rng: other
    )
    with (
        mock.patch.object(client_work, "client_work_parts", side_effect=Built) as parts,
        mock.patch.object(stateful_clients, "type_of", wraps=stateful_clients.type_of) as kept,
        pytest.raises(Built),
    ):
        chosen.build(setup)
    call = inspect.signature(client_work.client_work_parts).bind(*parts.call_args.args, **parts.call_args.kwargs)
    call.apply_defaults()
    made = call.arguments
    weights = made["initial_weights"].flat if made["initial_weights"] else model.initial_weights[0]
    received = made["received"](weights) if made["received"] else weights
    state = client_work.State(
        made["server_state"].initial(),
        tf.nest.map_structure(tf.constant, kept.call_args.args[0]) if kept.called else (),
    )
    client = local_training.ClientRound(examples(labels), tf.constant([3, 4]), tf.constant(1))
    return made["update"](tuple(map(tf.constant, received)), client, state)


@pytest.mark.parametrize("name", METHODS)
def test_a_clients_work_is_that_of_classes_with_the_same_loss(tasks, name):
    expected, found = (update_of(name, *task) for task in tasks)
    whole = tf.nest.flatten((expected.model_delta, expected.state))
    assert any(np.any(part) for part in whole)
    for one, other in zip(whole, tf.nest.flatten((found.model_delta, found.state)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    for one, other in zip(tf.nest.flatten(expected.report), tf.nest.flatten(found.report), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert int(found.examples) == int(expected.examples)
    assert int(found.extra_examples) == int(expected.extra_examples)
    assert int(found.predictions) == len(NAMES) * int(expected.predictions)
    np.testing.assert_allclose(found.loss_sum, len(NAMES) * expected.loss_sum, rtol=1e-5)
    np.testing.assert_allclose(found.correct, expected.correct, rtol=1e-5)


def curve_of(name, models, labels):
    """A strategy's curve on a client with the same train and test part."""
    strategy, (model, other) = STRATEGIES[name], models
    theta, others = ([tf.constant(w) for w in each.initial_weights[0]] for each in (model, other))
    added = {"": (), "rates": ([0.1 + w**2 for w in theta],), "several models": (others,)}[strategy.needs]
    weights = global_weights.GlobalWeights(theta, strategy.needs, added)
    client = adaptation.Client(model, weights, examples(labels), examples(labels), tf.constant([3, 4]))
    settings = strategy.settings.read(softmax_regression.VALUES)
    return strategy.curve(client, adaptation.Tuning(setups.sgd().build(), 1, 3, settings))


@pytest.mark.parametrize("name", [name for name in STRATEGIES if not STRATEGIES[name].one_label])
def test_a_strategy_is_that_of_classes_with_the_same_loss(tasks, name):
    (loss, correct), (other_loss, other_correct) = (curve_of(name, *task) for task in tasks)
    assert loss[1] != loss[0] or name == "fine_tune_early_stopping"  # which may choose epoch 0
    np.testing.assert_allclose(other_loss, len(NAMES) * loss, rtol=1e-5)
    np.testing.assert_allclose(other_correct, correct, rtol=1e-5)
