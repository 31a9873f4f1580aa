"""The function at the end of a Keras model: the functional one gives what goes into it, as the task's loss expects."""

import numpy as np
import pytest
import tensorflow as tf

from tff_personalization import errors
from tff_personalization.models import functional, keras_network

L = tf.keras.layers


def _functional_form(model, **settings):
    x_spec = tf.TensorSpec([None, 8])
    return keras_network.from_keras(model, functional.ONE_PREDICTION, x_spec=x_spec, **settings)


ENDS = {
    "Keras' function": (lambda: [L.Dense(5, tf.keras.activations.softmax)], "softmax"),
    "TensorFlow's function": (lambda: [L.Dense(5, tf.nn.softmax)], "softmax"),
    "TensorFlow's sigmoid": (lambda: [L.Dense(5, tf.sigmoid)], "sigmoid"),
    "a layer": (lambda: [L.Dense(5), L.Softmax()], "softmax"),
    "an Activation": (lambda: [L.Dense(5), L.Activation(tf.nn.softmax)], "softmax"),
    "an operation": (lambda: [L.Dense(5), tf.nn.softmax], "softmax"),
}


def _ending(layers):
    inputs = h = tf.keras.Input([8])
    for layer in layers:
        h = layer(h)
    return tf.keras.Model(inputs, h)


@pytest.mark.parametrize(("layers", "name"), ENDS.values(), ids=ENDS)
def test_a_final_softmax_or_sigmoid_is_left_out_however_it_is_written(layers, name):
    keras = _ending(layers())
    model = _functional_form(keras, activation=name)
    x = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)
    kernel, bias = weights = model.initial_weights[0]
    for _ in range(2):  # and Keras' own model does not change
        np.testing.assert_allclose(model.logits(weights, x, None), x @ kernel + bias, atol=1e-6)
        np.testing.assert_allclose(keras(x), getattr(tf.nn, name)(x @ kernel + bias), atol=1e-6)


def test_a_final_sigmoid_of_real_numbers_belongs_to_the_network():
    keras = _ending([L.Dense(5, "sigmoid")])
    model = _functional_form(keras, activation="linear")
    x = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)
    np.testing.assert_allclose(model.logits(model.initial_weights[0], x, None), keras(x), atol=1e-6)


def test_a_final_function_that_is_not_the_tasks_is_refused():
    for ends, activation in (("sigmoid", "softmax"), ("softmax", "sigmoid")):
        with pytest.raises(errors.UserError, match=f"ends with {ends}, .* from {activation}"):
            _functional_form(_ending([L.Dense(5, ends)]), activation=activation)
