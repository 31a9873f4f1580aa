"""Layers of a Keras model with code or types of their own: computed as Keras does, or refused in one line."""

import numpy as np
import pytest
import tensorflow as tf

from tff_personalization import errors
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


class _Subclass(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(5)

    def call(self, x):
        return self.dense(x)


def _called_subclass():
    model = _Subclass()
    model(X)
    return model


class _WithoutConfiguration(L.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def build(self, shape):
        self.kernel = self.add_weight("kernel", (shape[-1], 5))

    def call(self, x):
        return self.function(x @ self.kernel)


REFUSED = {
    "a subclass of Model": (_called_subclass, "Sequential or functional Keras model"),
    "half precision": (lambda: _sequential(L.Dense(5, dtype="mixed_float16")), "float16 with weights of float32"),
    "double precision": (lambda: _sequential(L.Dense(5, dtype="float64")), "float64 with weights of float64"),
    "SpectralNormalization": (lambda: _sequential(L.SpectralNormalization(L.Dense(5))), "changes weights by itself"),
    "no configuration": (lambda: _sequential(_WithoutConfiguration(tf.nn.relu)), "keep_weights=True"),
}


@pytest.mark.parametrize(("model", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_model_that_cannot_be_used_is_refused_in_one_line(model, hint):
    with pytest.raises(errors.UserError, match=hint) as refusal:
        _functional_form(model())
    assert "\n" not in str(refusal.value)
