"""Every method and strategy accepts a user's networks: a Keras model, and TFF's `FunctionalModel`.

The two networks compute the same with the same weights. So a round and an evaluation give the same with both. The task
of the second has its own metric, the share of wrong predictions, where lower is better.
"""

import dataclasses
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.contracts import test_methods, test_strategies
from tff_personalization import global_weights, metrics
from tff_personalization.models import functional, outputs
from tff_personalization.personalization import evaluation
from tff_personalization.personalization.strategies import STRATEGIES
from tff_personalization.tasks import registry, sources

CLASSES, HIDDEN, TESTED = test_strategies.CLASSES, 6, 9


def initial_weights(num_classes, rng):
    """Of two dense layers, the first without a bias."""
    kernels = (functional.glorot_uniform(rng, *shape) for shape in ((784, HIDDEN), (HIDDEN, num_classes)))
    return (*kernels, np.zeros(num_classes, np.float32))


def functional_model(num_classes, rng):
    @tf.function(autograph=False)
    def predict(model_weights, x, training):
        del training
        hidden, kernel, bias = model_weights[0]
        return tf.reshape(x / 255, [-1, 784]) @ hidden @ kernel + bias

    return tff.learning.models.FunctionalModel(
        initial_weights=(initial_weights(num_classes, rng), ()),
        predict_on_batch_fn=predict,
        loss_fn=lambda output, label, sample_weight=None: functional.cross_entropy(output, label),
        input_spec=(tf.TensorSpec([None, 28, 28]), functional.LABELS),
    )


def keras_model(num_classes, rng):
    layers = tf.keras.layers
    scaled = [tf.keras.Input([28, 28]), layers.Rescaling(1 / 255), layers.Flatten()]
    model = tf.keras.Sequential([*scaled, layers.Dense(HIDDEN, use_bias=False), layers.Dense(num_classes)])
    model.set_weights(initial_weights(num_classes, rng))
    return registry.Network(model, keep_weights=True)


def count_wrong(logits, labels):
    return tf.reduce_sum(tf.cast(~functional.hits(logits, labels), tf.float32))


def judged_by_errors(output):
    return output.judged_by(metrics.Metric("error rate", higher_is_better=False, largest=1.0), count_wrong)


NETWORKS = {"keras": keras_model, "functional": functional_model}
JUDGED = {"keras": lambda output: output, "functional": judged_by_errors}


def after_a_round(program, method, name):
    """The global weights before and after a round of each stage, and its metrics."""
    task = registry.TASKS["emnist62"]
    task = dataclasses.replace(task, predicts=JUDGED[name](task.predicts), models={"linear": NETWORKS[name]})
    with mock.patch.dict(registry.TASKS, emnist62=task):
        training = program.training(method, **test_methods.SETTINGS[method])
    for round_ in (test_methods.Round(stage.process) for stage in training.stages):
        yield round_.weights_of(round_.start), *round_([test_methods.client(8), test_methods.client(5)])[:2]


# Methods that ask of a network what another one asks of it, which is tested: the loss and its gradient in local steps,
# the same with a pull or another addition to the gradient, second derivatives, or a head apart from the other layers.
ASKS_WHAT = {
    **dict.fromkeys(
        ("reptile", "personalized_fed_avg", "fed_sgd", "centralized", "fed_avg_terms", "fomaml"), "fed_avg"
    ),
    **dict.fromkeys(("fed_prox", "fed_prox_example", "scaffold", "fed_amp", "p_fed_me"), "ditto"),
    **dict.fromkeys(("fed_per", "fed_babu"), "fed_rep"),
    "meta_sgd": "maml",
}
# Neither network has the normalization layers that fed_bn needs.
METHODS = [name for name in test_methods.TRAINED if name not in ("fed_bn", *ASKS_WHAT)]


def test_what_is_asked_of_a_network_is_tested():
    assert set(ASKS_WHAT) < set(test_methods.TRAINED)
    assert set(ASKS_WHAT.values()) <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_round_with_a_functional_model_is_that_with_a_keras_model(program, method):
    both = (after_a_round(program, method, name) for name in NETWORKS)
    for (start, with_keras, metrics_), (_, with_functional, of_errors) in zip(*both, strict=True):
        assert test_methods.differ(start, with_keras) == (method not in test_methods.WITHOUT_A_GLOBAL_MODEL)
        for one, other in zip(with_keras, with_functional, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
        assert of_errors["train_accuracy"] == pytest.approx(1 - metrics_["train_accuracy"], abs=1e-6)


@pytest.fixture(scope="module")
def curves(plugin, worker):
    """Each strategy's curve on a client, with both networks: (losses, scores), each (networks, epochs)."""
    image = tf.TensorSpec([28, 28], tf.uint8)
    theta = initial_weights(CLASSES, np.random.default_rng(1))
    rates, other = tuple(np.full_like(w, 0.2) for w in theta), tuple(-w for w in theta)
    found = {}
    for needs, added in {"": (), "rates": (rates,), "several models": (other,)}.items():
        weights = global_weights.GlobalWeights(theta, needs, added)
        names = [name for name in test_strategies.NAMES if STRATEGIES[name].needs == needs]
        records = []
        for network, predicts in JUDGED.items():
            evaluate = evaluation.build_personalization_evaluation(
                registry.Task(predicts(outputs.classes(range(CLASSES))), image, NETWORKS, sources.IMAGES).build(
                    network, np.random.default_rng(0)
                ),
                tff.learning.optimizers.build_sgdm(0.2),
                epochs=2,
                batch_size=4,
                strategies=names,
                release="records",
                own_settings=lambda group: group.read(test_strategies.VALUES),
                initial_weights=weights,
            )
            global_model = tff.learning.models.ModelWeights(weights.flat, ())
            records += evaluate(global_model, [test_strategies.client(12, TESTED)])
        for i, name in enumerate(names):
            found[name] = [np.stack([record[key][i] for record in records]) for key in ("loss_sum", "correct")]
    return found


@test_strategies.EVERY
def test_a_strategy_with_a_functional_model_is_that_with_a_keras_model(curves, strategy):
    losses, correct = curves[strategy]
    assert losses[0, -1] != losses[0, 0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    np.testing.assert_array_equal(correct[1], TESTED - correct[0])
