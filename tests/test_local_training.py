"""The inner loop by itself, eagerly: its visits, its training, its measurements."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import numpy_oracle
from tff_personalization import local_training
from tff_personalization.models import emnist_cnn, functional

SEED = tf.constant([1, 2])


def numbered_examples(count):
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(count)
    return local_training.Examples(tf.constant(images), tf.zeros([count], tf.int32))


def recording_model(visits, seeds):
    """A model that only records the examples and the seed of each training pass."""

    def logits(weights, x, dropout_seed):
        if dropout_seed is not None:
            visits.append(x[:, 0, 0].numpy().tolist())
            seeds.append(tuple(dropout_seed.numpy()))
        return tf.zeros([len(x), 3]) + weights[0]

    return functional.SeededModel(
        (np.zeros(3, np.float32),), lambda _, x: x, logits, stem_size=0, head_size=1, x_spec=emnist_cnn.IMAGES
    )


def walk(first, last, count=7, batch_size=3, **options):
    visits, seeds = [], []
    model = recording_model(visits, seeds)
    training = local_training.LocalTraining(model, tff.learning.optimizers.build_sgdm(0.1), batch_size, **options)
    state = training.initial_state(tuple(tf.constant(w) for w in model.initial_weights[0]))
    training.steps(state, numbered_examples(count), SEED, first, last)
    return visits, seeds


def test_an_epoch_is_one_pass_with_its_last_short_batch_kept_and_the_next_is_reshuffled():
    visits, _ = walk(0, 6)
    assert [len(batch) for batch in visits] == [3, 3, 1, 3, 3, 1]
    first, second = ([i for batch in epoch for i in batch] for epoch in (visits[:3], visits[3:]))
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second


def test_training_may_be_cut_into_pieces_anywhere():
    whole, whole_seeds = walk(0, 6)
    for cut in range(1, 6):
        before, before_seeds = walk(0, cut)
        after, after_seeds = walk(cut, 6)
        assert before + after == whole
        assert before_seeds + after_seeds == whole_seeds


def test_every_step_has_its_own_dropout_seed():
    _, seeds = walk(0, 9)
    assert len(set(seeds)) == 9


def test_without_shuffling_examples_are_visited_in_order():
    assert walk(0, 3, shuffle=False)[0] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_full_batch_holds_every_example():
    assert walk(0, 2, batch_size=None, shuffle=False)[0] == [list(range(7))] * 2


def test_no_examples_no_steps():
    assert walk(0, 5, count=0) == ([], [])


@pytest.mark.parametrize(
    ("share", "planned", "done"),
    [(0.3, 50, 15), (0.15, 100, 15), (0.09, 300, 27), (0.5, 5, 3), (0.001, 1, 1), (1, 7, 7)],
)
def test_a_stragglers_share_of_its_steps_is_rounded_up(share, planned, done):
    """In float32, 0.3 × 50 is more than 15."""
    client = local_training.ClientRound(numbered_examples(1), SEED, step_share=tf.constant(share, tf.float32))
    assert client.steps_done(planned) == done


def test_only_the_named_weights_are_trained():
    model = emnist_cnn.build_cnn(10, np.random.default_rng(0), dropout=False)
    training = local_training.LocalTraining(model, tff.learning.optimizers.build_sgdm(0.1, 0.9), 4, trained=model.head)
    rng = np.random.default_rng(1)
    examples = local_training.Examples(
        tf.constant(rng.integers(0, 256, (8, 28, 28)), tf.uint8), tf.constant(rng.integers(0, 10, 8), tf.int32)
    )
    start = tuple(tf.constant(w) for w in model.initial_weights[0])
    end = training.steps(training.initial_state(start), examples, SEED, 0, 2).weights
    changed = [not np.array_equal(a, b) for a, b in zip(start, end, strict=True)]
    assert changed == [False] * 6 + [True] * 2


def test_loss_and_accuracy_are_those_before_each_step():
    model = emnist_cnn.build_linear(3, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (7, 28, 28)).astype(np.uint8), rng.integers(0, 3, 7).astype(np.int32)
    training = local_training.LocalTraining(model, tff.learning.optimizers.build_sgdm(0.1), 3, shuffle=False)
    start = training.initial_state(tuple(tf.constant(w) for w in model.initial_weights[0]))
    end = training.steps(start, local_training.Examples(tf.constant(images), tf.constant(labels)), SEED, 0, 3)
    path = numpy_oracle.local_sgd([w.astype(float) for w in model.initial_weights[0]], images, labels, 0.1, 3, 3)
    loss, correct = 0.0, 0
    for weights, batch in zip(path, (slice(0, 3), slice(3, 6), slice(6, 7)), strict=False):
        logits = numpy_oracle.flat(images[batch]) @ weights[0] + weights[1]
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss -= log_p[np.arange(len(logits)), labels[batch]].sum()
        correct += int((logits.argmax(axis=1) == labels[batch]).sum())
    assert float(end.loss_sum) == pytest.approx(loss, rel=1e-5)
    assert int(end.correct) == correct
    assert int(end.examples) == 7


def test_evaluation_in_small_batches_equals_evaluation_at_once():
    model = emnist_cnn.build_linear(3, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    examples = local_training.Examples(
        tf.constant(rng.integers(0, 256, (11, 28, 28)), tf.uint8), tf.constant(rng.integers(0, 3, 11), tf.int32)
    )
    weights = tuple(tf.constant(w) for w in model.initial_weights[0])
    in_fours = functional.PlainClassifier(model.logits, model.scoring._replace(batch_size=4))
    in_pieces = local_training.evaluate(in_fours, weights, examples)
    at_once = local_training.evaluate(model, weights, examples)
    assert float(in_pieces[0]) == pytest.approx(float(at_once[0]), rel=1e-6)
    assert int(in_pieces[1]) == int(at_once[1])


def test_logits_that_are_not_finite_classify_nothing():
    logits = tf.constant([[float("nan"), 0.0], [1.0, 0.0], [0.0, float("inf")]])
    assert int(functional.count_correct(logits, tf.constant([0, 0, 1]))) == 1
