"""FedBN against a few lines of NumPy, on two linear layers with group normalization between them."""

import numpy as np
import pytest
import tensorflow as tf

from tests import numpy_oracle
from tests.algorithms import test_oracles as oracles
from tests.algorithms import test_personal_models as personal
from tff_personalization import errors
from tff_personalization.algorithms import fed_bn
from tff_personalization.models import emnist_cnn, functional

pytestmark = pytest.mark.usefixtures("worker")
rounds = personal.rounds


@pytest.fixture
def normalized():
    """Logits N(x·U)·V + b: N normalizes each example's two groups of units, then scales by γ and shifts by β."""
    rng = np.random.default_rng(0)
    initial = (
        functional.glorot_uniform(rng, 784, 6),
        *(np.ones(6, np.float32), np.zeros(6, np.float32)),
        *(functional.glorot_uniform(rng, 6, oracles.CLASSES), np.zeros(oracles.CLASSES, np.float32)),
    )

    def stem(weights, x):
        h = tf.reshape(tf.cast(x, tf.float32) / 255, [-1, 784]) @ weights[0]
        return tf.reshape(functional.group_norm(h[:, tf.newaxis, tf.newaxis], *weights[1:3], groups=2), [-1, 6])

    return functional.SeededModel(
        initial,
        stem,
        lambda weights, h, dropout_seed: h @ weights[3] + weights[4],
        stem_size=3,
        head_size=2,
        x_spec=emnist_cnn.IMAGES,
        normalization=(1, 2),
    )


def gradient(weights, x, y):
    """The gradient of U, γ, β, V and b: the head's by the oracle, the others by the chain rule."""
    u, scale, offset, v, b = weights
    h = (x @ u).reshape(-1, 2, 3)
    inverse = 1 / np.sqrt(h.var(axis=2, keepdims=True) + 1e-5)
    z = (h - h.mean(axis=2, keepdims=True)) * inverse
    features = z.reshape(-1, 6) * scale + offset
    p = np.exp(features @ v + b)
    p /= p.sum(axis=1, keepdims=True)
    by_features = (p - np.eye(oracles.CLASSES)[y]) @ v.T / len(y)
    by_z = (by_features * scale).reshape(-1, 2, 3)
    by_h = inverse * (by_z - by_z.mean(axis=2, keepdims=True) - z * (by_z * z).mean(axis=2, keepdims=True))
    of_normalization = [(by_features * z.reshape(-1, 6)).sum(axis=0), by_features.sum(axis=0)]
    return [x.T @ by_h.reshape(-1, 6), *of_normalization, *numpy_oracle.gradient([v, b], features, y)]


def test_fed_bn_equals_numpy(normalized, rounds):
    """Clients keep γ and β; the global ones stay the initial ones."""

    def of_a_client(theta, client, kept):
        end = [theta[0], *kept, *theta[3:]]
        for x, y in personal.of_epochs(client):
            end = personal.move(end, gradient(end, x, y), personal.SMALL)
        return [end[0], *theta[1:3], *end[3:]], end[1:3]

    process = fed_bn.build_fed_bn(personal.setup(fed_bn, normalized, personal.SMALL, local_epochs=personal.EPOCHS))
    start = oracles.initial(normalized)
    states = personal.assert_rounds_equal_numpy(process, rounds, start, start[1:3], of_a_client)
    assert np.abs(states["a"][0] - states["b"][0]).max() > 1e-2
    classifier, weights = process.personal(tuple(start), tuple(states["a"]))
    assert classifier is normalized
    for part, expected in zip(weights, [start[0], *states["a"], *start[3:]], strict=True):
        np.testing.assert_array_equal(part, expected)


def test_fed_bn_refuses_a_network_without_normalization():
    linear = emnist_cnn.build_linear(oracles.CLASSES, np.random.default_rng(0))
    with pytest.raises(errors.UserError, match=r"--method=fed_bn .* --model=cnn_group_norm"):
        fed_bn.build_fed_bn(personal.setup(fed_bn, linear))
