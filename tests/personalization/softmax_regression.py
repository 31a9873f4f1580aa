"""Strategies on softmax regression, and the same in NumPy: clients, curves, evaluations."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tests import numpy_oracle
from tff_personalization import global_weights, local_training
from tff_personalization.personalization import adaptation
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
    "head_learning_rate": None,
}


def part(size, seed):
    """Random images, with labels that softmax regression can learn."""
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


def measure(strategy, model, train, test, epochs=EPOCHS, batch_size=BATCH, optimizer=SGD, **values):
    """The strategy's curve, as (mean loss, right answers), each of shape (epochs + 1,)."""
    tuning = adaptation.Tuning(optimizer, epochs, batch_size, STRATEGIES[strategy].settings.read(VALUES | values))
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
    """Asserts that the curve evaluates the weights in `models`, one for each epoch."""
    expected = [judge(probabilities(weights, test[0]), test[1]) for weights in models]
    np.testing.assert_allclose(measured[0], [loss for loss, _ in expected], rtol=1e-4)
    np.testing.assert_array_equal(measured[1], [correct for _, correct in expected])
