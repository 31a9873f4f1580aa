"""Fine-tuning that stops at each client's best epoch on the examples that it holds back."""

import numpy as np
import pytest
import tensorflow as tf

from tests.personalization.softmax_regression import CLASSES, SEED, measure, part
from tff_personalization import local_training
from tff_personalization.personalization import early_stopping


def best_in_python(correct, loss):
    return [min(range(e + 1), key=lambda i: (-correct[i], loss[i], i)) for e in range(len(correct))]


def test_early_stopping_takes_the_most_right_answers_then_the_least_loss_then_the_first():
    cases = [
        ([3, 2, 4, 4, 1], [1.0, 2.0, 3.0, 2.5, 0.1], [0, 0, 2, 3, 3]),
        ([0, 0, 0], [0.0, 0.0, 0.0], [0, 0, 0]),  # nothing was held back
        ([5, 5, 5], [1.0, np.nan, 0.5], [0, 0, 2]),
        ([1, 1, 2], [np.inf, 3.0, 9.0], [0, 1, 2]),
    ]
    rng = np.random.default_rng(0)
    for _ in range(50):
        correct, loss = rng.integers(0, 3, 7), rng.integers(0, 3, 7).astype(float)
        cases.append((correct, loss, best_in_python(correct, loss)))
    for correct, loss, expected in cases:
        best = early_stopping.best_so_far(tf.constant(correct, tf.int32), tf.constant(loss, tf.float32))
        np.testing.assert_array_equal(best, expected)


def test_early_stopping_follows_the_examples_that_the_client_holds_back(model):
    """The slice is the first quarter of a permutation; fine-tuning sees the rest; the curve is the best so far."""
    images, labels = part(22, 1)
    labels[::3] = (labels[::3] + 1) % CLASSES  # some labels are wrong, so that epochs differ
    order = tf.random.experimental.stateless_shuffle(tf.range(22), tf.random.fold_in(SEED, tf.int32.min)).numpy()
    held, rest = ((images[places], labels[places]) for places in (order[:5], order[5:]))
    test = part(40, 2)
    losses, corrects = measure("fine_tune", model, rest, test, epochs=8)
    held_losses, held_corrects = measure("fine_tune", model, rest, held, epochs=8)
    best = best_in_python(held_corrects, held_losses)
    assert len(set(best)) > 2
    stopped = measure("fine_tune_early_stopping", model, (images, labels), test, epochs=8)
    np.testing.assert_array_equal(stopped[1], corrects[best])
    np.testing.assert_allclose(stopped[0], losses[best], rtol=1e-5)


@pytest.mark.parametrize(("share", "count", "held"), [(0.26, 450, 117), (0.21, 300, 63), (0.2, 9, 1), (0.2, 4, 0)])
def test_the_share_that_is_held_back_is_rounded_down(share, count, held):
    """In float32, 0.26 × 450 is less than 117."""
    examples = local_training.Examples(tf.zeros([count]), tf.zeros([count], tf.int32))
    held_back, rest = early_stopping.split(tf.constant(SEED), examples, share)
    assert (len(held_back.y), len(rest.y)) == (held, count - held)


def test_a_client_too_small_to_hold_anything_back_keeps_the_global_model(model):
    def keeps_it(size, seed):
        losses, _ = measure("fine_tune_early_stopping", model, part(size, seed), part(40, 2))
        return len(set(losses)) == 1

    assert keeps_it(3, 1)  # a quarter of 3 is less than one example
    assert not all(keeps_it(4, seed) for seed in (2, 3, 4))
