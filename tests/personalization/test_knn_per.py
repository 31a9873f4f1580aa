"""kNN-Per against a few lines of NumPy, and by the activations of Keras' layers."""

import numpy as np
import pytest
import tensorflow as tf

from tests import numpy_oracle
from tests.personalization.softmax_regression import CLASSES, EPOCHS, SEED, initial, judge, measure, part, probabilities
from tff_personalization.models import emnist_cnn


def knn_in_numpy(weights, train, test, neighbours, share, kernel=lambda distances: np.exp(-distances)):
    phi, memory = numpy_oracle.flat(test[0]), numpy_oracle.flat(train[0])
    p = probabilities(weights, test[0])
    for i, h in enumerate(phi):
        distances = np.sqrt(((memory - h) ** 2).sum(axis=1))
        vote = np.zeros(CLASSES)
        for j in np.argsort(distances)[:neighbours]:
            vote[train[1][j]] += kernel(distances[j])
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


def test_tuned_knn_per_chooses_the_share_of_the_vote_on_held_back_examples(model):
    """A fifth of the train part is held back. Then all of it votes, by squared distance over width."""
    train, test, width = part(40, 3), part(40, 2), 784
    train[1][::3] = (train[1][::3] + 1) % CLASSES  # the vote is wrong about some
    order = tf.random.experimental.stateless_shuffle(tf.range(40), tf.random.fold_in(SEED, tf.int32.min)).numpy()
    held, rest = ((train[0][places], train[1][places]) for places in (order[:8], order[8:]))

    def kernel(distance):
        return np.exp(-(distance**2) / width)

    def mixture(train, test, share):
        return judge(knn_in_numpy(initial(model), train, test, 3, share, kernel), test[1])

    ranked = [(-correct, loss) for loss, correct in (mixture(rest, held, share / 10) for share in range(11))]
    chosen = min(range(11), key=ranked.__getitem__) / 10
    assert 0 < chosen < 1
    losses, corrects = measure("knn_per_tuned", model, train, test)
    after = mixture(train, test, chosen)
    np.testing.assert_allclose(losses[1:], after[0], rtol=1e-4)
    np.testing.assert_array_equal(corrects[1:], after[1])


def test_tuned_knn_per_of_a_client_that_can_hold_nothing_back_is_the_global_model(model):
    losses, _ = measure("knn_per_tuned", model, part(4, 1), part(40, 2))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_knn_per_sees_what_the_last_layer_is_given():
    """On the CNN, only the vote, from its dense layer's activations, computed by Keras' layers."""
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
