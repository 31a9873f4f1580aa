"""Keras models whose layers are called in unusual ways give Keras' own results, or are refused."""

import numpy as np
import pytest
import tensorflow as tf

from tff_personalization import errors
from tff_personalization.models import functional, keras_network
from tff_personalization.personalization import evaluation

L = tf.keras.layers


def network(build, shape=(4, 4), activation="softmax"):
    """A Keras model from its input to its output, and its functional form."""
    inputs = tf.keras.Input(shape)
    keras = tf.keras.Model(inputs, build(inputs))
    spec = tf.TensorSpec([None, *shape])
    return keras, keras_network.from_keras(keras, functional.ONE_PREDICTION, x_spec=spec, activation=activation)


CALLS = {
    "x / 255": lambda x: L.Dense(3)(L.Flatten()(x / 255.0)),
    "1 - x": lambda x: L.Dense(3)(L.Flatten()(1 - x)),
    "an argument of its own": lambda x: L.Dense(3)(tf.nn.leaky_relu(L.Flatten()(x), alpha=0.7)),
    "a slice": lambda x: L.Dense(3)(x[:, 1]),
    "one axis": lambda x: L.Dense(3)(tf.reduce_mean(x, axis=2)),
    "a dict of branches": lambda x: {"y": L.Add()([L.Dense(3)(x[:, 0]), L.Dense(3)(x[:, 1])])},
}


@pytest.mark.parametrize("build", CALLS.values(), ids=CALLS)
def test_functions_with_arguments_are_called_as_in_keras(build):
    keras, model = network(build)
    x = np.random.default_rng(1).normal(size=(5, 4, 4)).astype(np.float32)
    expected = tf.nest.flatten(keras(x))[0]
    np.testing.assert_allclose(model.logits(model.initial_weights[0], x, None), expected, atol=1e-6)


def _twice(layer, between):
    return lambda x: layer(between(layer(L.Dense(3)(L.Flatten()(x)))))


REFUSED = {
    "a last layer used twice": (
        lambda x: _twice(L.Dense(3, "softmax"), L.Dense(3))(x),
        "other results here than in Keras: use its last layer once",
    ),
    "a softmax used twice": (lambda x: _twice(L.Softmax(), L.Dense(3))(x), "other results here than in Keras"),
    "dropout in evaluation": (
        lambda x: L.Dense(3)(L.Dropout(0.5)(L.Flatten()(x + 1.0), training=True)),
        "call no layer with training=True",
    ),
    "softmax at each place": (lambda x: L.TimeDistributed(L.Dense(3, "softmax"))(x), "gives probabilities"),
    "a mean of softmax": (
        lambda x: L.GlobalAveragePooling1D()(L.Dense(3, "softmax")(x)),
        "make softmax its last layer",
    ),
}


@pytest.mark.parametrize(("build", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_network_that_training_would_misread_is_refused(build, hint):
    with pytest.raises(errors.UserError, match=hint) as refusal:
        network(build)
    assert "\n" not in str(refusal.value)


HEADS = {
    "logits": (lambda x: L.Dense(3)(L.Flatten()(x)), True),
    "softmax": (lambda x: L.Dense(3, "softmax")(L.Flatten()(x)), True),
    "a mean over places": (lambda x: L.GlobalAveragePooling1D()(L.Dense(3)(x)), True),
    "a maximum over places": (lambda x: L.GlobalMaxPooling1D()(L.Dense(3)(x)), False),
    "relu": (lambda x: L.Dense(3, "relu")(L.Flatten()(x)), False),
    "scaled": (lambda x: 2.0 * L.Dense(3)(L.Flatten()(x)), False),
    "used twice": (lambda x: _twice(L.Dense(3), L.Activation("tanh"))(x), False),
    "beside another": (lambda x: L.Add()([L.Dense(3)(x[:, 0]), L.Dense(3)(x[:, 1])]), False),
}


def test_a_strategy_that_the_network_does_not_fit_is_refused_before_the_first_round():
    _, model = network(HEADS["relu"][0])
    with pytest.raises(errors.UserError, match="--strategies: knn_per needs a network with a last layer that is dense"):
        evaluation.check_network(model, ["fine_tune", "fine_tune_biases", "knn_per"])
    _, model = network(lambda x: L.Dense(3, use_bias=False)(L.Flatten()(x)))
    with pytest.raises(errors.UserError, match="fine_tune_biases needs a network with biases: leave it out"):
        evaluation.check_network(model, ["fine_tune", "fine_tune_biases"])


@pytest.mark.parametrize(("build", "dense"), HEADS.values(), ids=HEADS)
def test_a_dense_head_is_one_whose_output_is_the_logits(build, dense):
    tf.keras.utils.set_random_seed(39)  # the maximum over places is then that of one place
    assert functional.has_dense_head(network(build)[1]) == dense
