"""Layers of a Keras model with code or types of their own: computed as Keras does, or refused in one line."""

import numpy as np
import pytest
import tensorflow as tf

from tff_personalization.models import functional, keras_network

L = tf.keras.layers
X = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)
SEED = tf.constant([3, 4])


def _functional_form(model):
    return keras_network.from_keras(
        model, functional.ONE_PREDICTION, x_spec=tf.TensorSpec([None, 8]), rng=np.random.default_rng(0)
    )


def _sequential(*layers):
    return tf.keras.Sequential([tf.keras.Input([8]), *layers])


class _TwiceInTraining(L.Layer):
    def call(self, x, training=None):
        return 2 * x if training else x


IN_TRAINING = {
    "an own layer": _TwiceInTraining,
    "one in a nested model": lambda: _sequential(_TwiceInTraining()),
    "a Lambda": lambda: L.Lambda(lambda x, training=None: 2 * x if training else x),
}


@pytest.mark.parametrize("layer", IN_TRAINING.values(), ids=IN_TRAINING)
def test_own_code_learns_whether_it_is_called_in_training(layer):
    model = _functional_form(_sequential(L.Dense(8), layer(), L.Dense(5)))
    kernel, bias, *head = weights = model.initial_weights[0]
    hidden = X @ kernel + bias
    np.testing.assert_allclose(model.logits(weights, X, None), hidden @ head[0] + head[1], atol=1e-5)
    np.testing.assert_allclose(model.logits(weights, X, SEED), 2 * hidden @ head[0] + head[1], atol=1e-5)


OWN_FUNCTIONS = {
    "activation": lambda: L.Dense(6, lambda x: x * tf.sigmoid(x)),
    "TensorFlow's activation": lambda: L.Dense(6, tf.nn.log_softmax),
    "initializer": lambda: L.Dense(6, kernel_initializer=lambda shape, dtype=None: tf.ones(shape, dtype)),
    "activation of a recurrent layer": lambda: L.LSTM(6, lambda x: x * tf.sigmoid(x)),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Keras warns that it cannot save them
@pytest.mark.parametrize("layer", OWN_FUNCTIONS.values(), ids=OWN_FUNCTIONS)
def test_a_layer_may_have_functions_of_its_own(layer):
    keras = _sequential(L.Reshape([4, 2]), layer(), L.Flatten(), L.Dense(5))
    model = _functional_form(keras)
    weights = model.initial_weights[0]
    expected = model.to_keras(weights)(X)
    np.testing.assert_allclose(model.logits(weights, X, None), expected, atol=1e-6)
