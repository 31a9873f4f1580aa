"""The recurrent network against a few lines of NumPy, and the places that count in its loss and accuracy."""

import numpy as np
import pytest
import tensorflow as tf

from tff_personalization.models import char_lstm, characters

CLASSES = len(characters.CLASSES)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def numpy_lstm(x, kernel, recurrent, bias):
    """All outputs of a layer from x, shape (steps, batch, inputs); gates in the order input, forget, output, cell."""
    h = c = np.zeros((x.shape[1], recurrent.shape[0]))
    outputs = []
    for step in x:
        i, f, o, g = np.split(step @ kernel + h @ recurrent + bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs)


def small_layer(steps=5, batch=3, inputs=2, units=4):
    rng = np.random.default_rng(0)
    shapes = (steps, batch, inputs), (inputs, 4 * units), (units, 4 * units), (4 * units,)
    return [rng.normal(size=shape) for shape in shapes], rng.normal(size=(steps, batch, units))


def test_a_layer_equals_numpy():
    arguments, _ = small_layer()
    np.testing.assert_allclose(char_lstm.lstm(*map(tf.constant, arguments)), numpy_lstm(*arguments), rtol=1e-12)


@pytest.mark.parametrize("argument", range(4), ids=["x", "kernel", "recurrent", "bias"])
def test_the_gradient_of_a_layer_equals_finite_differences_of_numpy(argument):
    arguments, upstream = small_layer()
    tensors = [tf.constant(part) for part in arguments]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        output = tf.reduce_sum(char_lstm.lstm(*tensors) * upstream)
    gradient = tape.gradient(output, tensors)[argument].numpy()
    expected, step = np.zeros_like(gradient), 1e-6
    for place in np.ndindex(*gradient.shape):
        ends = []
        for shift in (step, -step):
            moved = [part.copy() for part in arguments]
            moved[argument][place] += shift
            ends.append((numpy_lstm(*moved) * upstream).sum())
        expected[place] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


def model_and_batch(batch=4):
    """A small model with weights that are not near zero, and sequences with padding at the end."""
    rng = np.random.default_rng(1)
    model = char_lstm.build_char_lstm(CLASSES, rng, embedding=3, units=5)
    weights = tuple(rng.normal(size=w.shape).astype(np.float32) for w in model.initial_weights[0])
    x, y = characters.to_sequences(bytes(rng.choice(list(b"abcdefgh"), n).tolist()) for n in (30, 150, 5)[:batch])
    return model, weights, x, y


def test_the_network_equals_numpy():
    model, weights, x, _ = model_and_batch()
    h = numpy_lstm(numpy_lstm(weights[0][x.T], *weights[1:4]), *weights[4:7])
    logits = model.logits(tuple(map(tf.constant, weights)), tf.constant(x), None)
    np.testing.assert_allclose(logits, h.transpose(1, 0, 2) @ weights[7] + weights[8], atol=1e-4)
    assert model.stem(weights, tf.constant(x)).shape == (4, 80, 5)


def test_a_character_is_predicted_only_from_those_before_it():
    model, weights, x, _ = model_and_batch()
    changed = x.copy()
    changed[:, 20] = 7
    before, after = (
        model.logits(tuple(map(tf.constant, weights)), tf.constant(part), None).numpy() for part in (x, changed)
    )
    np.testing.assert_array_equal(before[:, :20], after[:, :20])
    assert (before[:, 20] != after[:, 20]).any()


def test_padding_counts_neither_in_the_loss_nor_in_the_accuracy_but_the_end_and_unknown_characters_do():
    model, weights, x, y = model_and_batch()
    y[0, 3] = characters.OUT_OF_VOCABULARY
    logits = model.logits(tuple(map(tf.constant, weights)), tf.constant(x), None).numpy().astype(float)
    logits[:, ::3, :] += 50 * np.eye(CLASSES)[y[:, ::3]]  # a third of all places are right, including padding
    logits[0, 3, characters.OUT_OF_VOCABULARY] += 100
    losses, right = [], 0
    for row, labels in zip(logits, y, strict=True):
        for place, label in zip(row, labels, strict=True):
            if label != characters.PAD:
                losses.append(np.log(np.exp(place - place.max()).sum()) + place.max() - place[label])
                right += place.argmax() == label
    logits = tf.constant(logits, tf.float32)
    assert float(model.scoring.loss(logits, y)) == pytest.approx(np.mean(losses), rel=1e-5)
    assert int(model.scoring.score(logits, y)) == right
    assert int(model.scoring.count_predictions(y)) == len(losses) == (30 + 1) + (80 + 70) + (5 + 1)


def test_what_the_network_says_at_padding_does_not_matter():
    model, _, _, y = model_and_batch()
    logits = np.random.default_rng(2).normal(size=(*y.shape, CLASSES)).astype(np.float32)
    other = logits + 100 * (y == characters.PAD)[..., None] * np.eye(CLASSES)[5]
    for score in (model.scoring.loss, model.scoring.score):
        assert float(score(tf.constant(logits), y)) == float(score(tf.constant(other, tf.float32), y))


def test_nothing_to_predict_is_no_loss():
    model = model_and_batch()[0]
    empty = tf.zeros([2, 80], tf.int32)
    assert float(model.scoring.loss(tf.ones([2, 80, CLASSES]), empty)) == 0


def test_the_network_has_the_published_size():
    model = char_lstm.build_char_lstm(CLASSES, np.random.default_rng(0))
    layers = 90 * 8, 4 * 256 * (8 + 256 + 1), 4 * 256 * (256 + 256 + 1), 257 * 90
    assert sum(w.size for w in model.initial_weights[0]) == sum(layers) == 820_522


def test_recurrent_kernels_begin_orthogonal_and_forget_gates_open():
    model = char_lstm.build_char_lstm(CLASSES, np.random.default_rng(0), units=6)
    for recurrent, bias in (model.initial_weights[0][2:4], model.initial_weights[0][5:7]):
        np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(6), atol=1e-6)
        assert bias.tolist() == [0] * 6 + [1] * 6 + [0] * 12
