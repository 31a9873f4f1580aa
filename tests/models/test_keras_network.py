"""Keras models as functional ones: equal to Keras itself, seeded, and usable inside TFF's worker."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests import setups
from tff_personalization import cohorts, errors, local_training
from tff_personalization.algorithms import client_work, fed_avg
from tff_personalization.models import emnist_cnn, functional, keras_network, named_inputs

L = tf.keras.layers
SEED = tf.constant([3, 4])
WORDS = 20
NETWORKS = {
    "dense": ([8], lambda: [L.Dense(12, "relu"), L.LayerNormalization(), L.Dense(5)]),
    "probabilities": ([8], lambda: [L.Dense(12, "tanh"), L.Dense(5, "softmax")]),
    "images": (
        [12, 12, 3],
        lambda: [
            *(L.Conv2D(8, 3, activation="relu"), L.GroupNormalization(4), L.DepthwiseConv2D(3, padding="same")),
            *(L.MaxPooling2D(2), L.Conv2D(4, 2, strides=2), L.AveragePooling2D(2, 1), L.GlobalAveragePooling2D()),
            L.Dense(5),
        ],
    ),
    "signals": (
        [20, 3],
        lambda: [
            L.Conv1D(8, 3, activation="relu"),
            L.MaxPooling1D(2),
            L.SeparableConv1D(4, 3),
            L.Flatten(),
            L.Dense(5),
        ],
    ),
    "dropout": (
        [6, 4],
        lambda: [L.Conv1D(8, 2, activation="relu"), L.Dropout(0.25), L.Flatten(), L.Dropout(0.5), L.Dense(5)],
    ),
    "words": (
        [10],
        lambda: [L.Embedding(WORDS, 6, mask_zero=True), L.LSTM(7, return_sequences=True), L.GRU(6), L.Dense(5)],
    ),
}


def _sequential(shape, layers):
    words = isinstance(layers[0], L.Embedding)
    return tf.keras.Sequential([tf.keras.Input(shape, dtype=tf.int32 if words else tf.float32), *layers])


def _functional_form(model, **settings):
    (spec,) = model.inputs
    x_spec = tf.TensorSpec(spec.shape, spec.dtype)
    return keras_network.from_keras(model, functional.ONE_PREDICTION, x_spec=x_spec, **settings)


def _examples(model, count=16):
    rng = np.random.default_rng(1)
    (spec,) = model.input_spec[:1]
    shape = (count, *spec.shape[1:])
    x = rng.integers(0, WORDS, shape) if spec.dtype == tf.int32 else rng.normal(size=shape)
    return local_training.Examples(tf.constant(x, spec.dtype), tf.constant(rng.integers(0, 5, count), tf.int32))


@pytest.mark.parametrize(("shape", "layers"), NETWORKS.values(), ids=NETWORKS)
def test_loss_gradients_and_ten_steps_are_those_of_keras(shape, layers, monkeypatch):
    keras = _sequential(shape, layers())
    for number, layer in enumerate(layer for layer in keras.layers if isinstance(layer, L.Dropout)):
        monkeypatch.setattr(layer, "call", functools.partial(_kept, layer.rate, number))
    model = _functional_form(keras, rng=np.random.default_rng(0))
    x, y = _examples(model)
    _assert_equal_for_ten_steps(model, keras, x, y, x)


def test_weights_of_normalization_layers_are_known():
    places = {
        name: _functional_form(_sequential(shape, layers())).normalization for name, (shape, layers) in NETWORKS.items()
    }
    assert {name: found for name, found in places.items() if found} == {"dense": (2, 3), "images": (2, 3)}


def _kept(rate, number, h, training):
    """Inverted dropout in Keras' own call, of the units that `SEED` leaves out."""
    ones = tf.ones([len(h), int(np.prod(h.shape[1:]))])
    mask = functional.dropout(ones, rate, tf.random.fold_in(SEED, number)) > 0
    return tf.where(tf.reshape(mask, h.shape), h / (1 - rate), 0.0) if training else h


NUMBERS, WORD = tf.keras.Input([3], name="numbers"), tf.keras.Input([2], dtype=tf.int32, name="words")
NAMED_INPUTS = {
    "a list": lambda: [WORD, NUMBERS],
    "a dict": lambda: {"words": WORD, "numbers": NUMBERS},
}


@pytest.mark.parametrize("inputs", NAMED_INPUTS.values(), ids=NAMED_INPUTS)
def test_a_functional_model_of_named_inputs_is_that_of_keras(inputs):
    embedded = L.Flatten()(L.Embedding(WORDS, 4)(WORD))
    hidden = L.Dense(8, "tanh")(L.Concatenate()([embedded, NUMBERS]))
    keras = tf.keras.Model(inputs(), L.Dense(5)(hidden))
    features = {"numbers": tf.TensorSpec([3]), "words": tf.TensorSpec([2], tf.int32)}
    x_spec = tf.TensorSpec([None, *named_inputs.packed_spec(features).shape])
    model = keras_network.from_keras(keras, functional.ONE_PREDICTION, x_spec=x_spec, inputs=features)
    rng = np.random.default_rng(1)
    named = {"numbers": rng.normal(size=(16, 3)).astype(np.float32), "words": rng.integers(0, WORDS, (16, 2), np.int32)}
    y = tf.constant(rng.integers(0, 5, 16), tf.int32)
    _assert_equal_for_ten_steps(model, keras, tf.constant(named_inputs.pack(named)), y, named)


def test_inputs_of_other_names_than_the_features_are_refused():
    keras = tf.keras.Model([WORD, NUMBERS], L.Dense(5)(NUMBERS))
    for features, hint in (({"numbers": tf.TensorSpec([3])}, "are numbers;"), (None, "one array without a name")):
        with pytest.raises(errors.UserError, match=f"has the inputs words, numbers: .*{hint}"):
            keras_network.from_keras(keras, functional.ONE_PREDICTION, x_spec=tf.TensorSpec([None, 3]), inputs=features)


def _assert_equal_for_ten_steps(model, keras, x, y, x_of_keras):
    """Asserts that loss and gradients of ten SGD steps, and the weights after them, are those of Keras."""
    theta = tuple(map(tf.constant, model.initial_weights[0]))
    twin = model.to_keras(theta)
    probabilities = keras.layers[-1].activation is tf.keras.activations.softmax
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities)
    sgd = tf.keras.optimizers.SGD(0.1)

    @tf.function
    def gradients_of(theta):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            loss = model.scoring.loss(model.logits(theta, x, SEED), y)
        return loss, tape.gradient(loss, theta)

    for _ in range(10):
        loss, gradients = gradients_of(theta)
        with tf.GradientTape() as tape:
            expected = loss_of(y, twin(x_of_keras, training=True))
        of_keras = tape.gradient(expected, twin.trainable_variables)
        assert float(loss) == pytest.approx(float(expected), abs=1e-6)
        for ours, its in zip(gradients, of_keras, strict=True):
            np.testing.assert_allclose(ours, tf.convert_to_tensor(its), atol=1e-6)
        theta = tuple(w - 0.1 * g for w, g in zip(theta, gradients, strict=True))
        sgd.apply_gradients(zip(of_keras, twin.trainable_variables, strict=True))
    for ours, its in zip(theta, twin.trainable_variables, strict=True):
        np.testing.assert_allclose(ours, its, atol=1e-6)


def test_meta_learning_differentiates_through_a_step():
    """The derivative of the loss after a step, in a direction, is the quotient of small differences."""
    layers = [L.Embedding(WORDS, 4), L.Conv1D(6, 3, activation="tanh"), L.GroupNormalization(2), L.LSTM(5), L.Dense(5)]
    model = _functional_form(_sequential([8], layers), rng=np.random.default_rng(0))
    x, y = _examples(model)
    theta = tuple(map(tf.constant, model.initial_weights[0]))
    rng = np.random.default_rng(2)
    drawn = [rng.normal(size=w.shape) for w in theta]
    length = np.sqrt(sum((part**2).sum() for part in drawn))
    direction = tuple(tf.constant(part / length, tf.float32) for part in drawn)

    def after_a_step(theta):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            loss = model.scoring.loss(model.logits(theta, x, SEED), y)
        adapted = tuple(w - 0.5 * g for w, g in zip(theta, tape.gradient(loss, theta), strict=True))
        return model.scoring.loss(model.logits(adapted, x, SEED), y)

    @tf.function
    def derivative():
        with tf.GradientTape() as tape:
            tape.watch(theta)
            loss = after_a_step(theta)
        return tf.add_n([tf.reduce_sum(g * d) for g, d in zip(tape.gradient(loss, theta), direction, strict=True)])

    around = tf.function(lambda h: after_a_step(tuple(w + h * d for w, d in zip(theta, direction, strict=True))))
    quotient = (float(around(0.01)) - float(around(-0.01))) / 0.02
    assert float(derivative()) == pytest.approx(quotient, rel=0.02)


def _twin_of_the_built_in_network():
    return tf.keras.Sequential(
        [
            tf.keras.Input([28, 28, 1]),
            L.Rescaling(1 / 255),
            L.Conv2D(32, 3, activation="relu"),
            L.Conv2D(64, 3, activation="relu"),
            L.MaxPooling2D(),
            L.Dropout(0.25),
            L.Flatten(),
            L.Dense(128, activation="relu"),
            L.Dropout(0.5),
            L.Dense(5),
        ]
    )


def test_dropout_draws_what_the_built_in_network_draws():
    built_in = emnist_cnn.build_cnn(5, np.random.default_rng(0))
    model = keras_network.from_keras(
        _twin_of_the_built_in_network(), functional.ONE_PREDICTION, x_spec=emnist_cnn.IMAGES
    )
    theta = tuple(map(tf.constant, built_in.initial_weights[0]))
    x = tf.constant(np.random.default_rng(1).integers(0, 256, (3, 28, 28)), tf.uint8)
    assert (model.stem_size, model.head) == (built_in.stem_size, built_in.head)
    for seed in (SEED, None):
        np.testing.assert_allclose(model.logits(theta, x, seed), built_in.logits(theta, x, seed), atol=1e-5)


def test_dropout_of_any_rate_and_of_whole_channels_follows_the_seed():
    model = _functional_form(_sequential([6, 3], [L.Dropout(0.3), L.SpatialDropout1D(0.5), L.Flatten(), L.Dense(5)]))
    theta, x = model.initial_weights[0], tf.ones([2, 6, 3])
    first, again, other = (model.logits(theta, x, tf.constant([seed, 0])).numpy() for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_the_same_generator_draws_the_same_weights_and_does_not_change_the_global_seed():
    keras = _sequential([8], [L.Dense(4), L.Dense(5)])
    before = [w.numpy() for w in keras.weights]
    one, two, other = (_functional_form(keras, rng=np.random.default_rng(s)).initial_weights[0] for s in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert (one[0] != other[0]).any()
    assert all((a == b).all() for a, b in zip(_functional_form(keras).initial_weights[0], before, strict=True))


class _Residual(L.Layer):
    """A layer with weights of its own, and a layer that makes its weights when it is called."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(6)

    def build(self, shape):
        self.shift = self.add_weight("shift", (6,), initializer="random_normal")

    def call(self, x):
        return x + self.dense(x) + self.shift


def test_weights_of_layers_inside_of_attention_and_own_layers_follow_the_generator():
    words = tf.keras.Input([7], dtype=tf.int32)
    hidden = L.Embedding(WORDS, 6)(words)
    hidden = L.GlobalAveragePooling1D()(_Residual()(L.MultiHeadAttention(2, 3)(hidden, hidden)))
    keras = tf.keras.Model(words, L.Dense(5)(hidden))
    model, again, other = (_functional_form(keras, rng=np.random.default_rng(seed)) for seed in (0, 0, 1))
    weights = {w.name: model.initial_weights[0][i] for i, w in enumerate(keras.trainable_weights)}
    for ours, its, another in zip(*(one.initial_weights[0] for one in (model, again, other)), strict=True):
        np.testing.assert_array_equal(ours, its)
        assert not ours.any() or (ours != another).any()
    (query, key) = (next(w for name, w in weights.items() if part in name) for part in ("query/kernel", "key/kernel"))
    assert (query != key).all()
    x, _ = _examples(model)
    with_weights = model.to_keras(model.initial_weights[0])
    np.testing.assert_allclose(model.logits(model.initial_weights[0], x, None), with_weights(x), atol=1e-6)


def test_head_is_the_last_layer_with_weights_unless_layers_are_named():
    layers = [L.Dense(4, name="a"), L.Dense(3, name="b"), L.Dense(5, use_bias=False, name="c")]
    keras = _sequential([8], layers)
    assert _functional_form(keras).head == slice(4, None)
    assert _functional_form(keras, head=2).head == slice(2, None)
    named = _functional_form(keras, head=["a"])  # its weights come last
    assert [w.shape for w in named.initial_weights[0][named.head]] == [(8, 4), (4,)]
    assert named.stem_size == 0


def test_a_functional_model_of_branches_has_no_stem_and_is_equal():
    inputs = tf.keras.Input([8])
    hidden = L.Dense(6, "relu")(inputs)
    keras = tf.keras.Model(inputs, L.Dense(5)(L.Concatenate()([hidden, L.Dense(2)(hidden), inputs])))
    model = _functional_form(keras)
    x, _ = _examples(model)
    assert model.stem_size == 0
    np.testing.assert_allclose(model.logits(model.initial_weights[0], x, None), keras(x), atol=1e-6)


def test_frozen_layers_stay_as_they_are():
    frozen = L.Dense(40, trainable=False)
    model = _functional_form(_sequential([8], [frozen, L.Dense(5)]), rng=np.random.default_rng(0))
    assert [w.shape for w in model.initial_weights[0]] == [(40, 5), (5,)]
    x, _ = _examples(model)
    expected = (x @ frozen.kernel + frozen.bias) @ model.initial_weights[0][0] + model.initial_weights[0][1]
    np.testing.assert_allclose(model.logits(model.initial_weights[0], x, None), expected, atol=1e-5)


def test_a_round_in_tffs_worker_is_that_of_the_inner_loop_outside(worker):
    keras = tf.keras.Sequential(
        [
            tf.keras.Input([10], dtype=tf.int32),
            *(L.Embedding(WORDS, 6), L.LSTM(7, return_sequences=True), L.Conv1D(8, 3), L.GroupNormalization(2)),
            *(L.Dropout(0.25), L.Flatten(), L.Dense(16, trainable=False), L.Dense(5)),
        ]
    )
    model = _functional_form(keras, rng=np.random.default_rng(0))
    examples = _examples(model)
    process = fed_avg.build_fed_avg(setups.setup(fed_avg, model, local_epochs=2, batch_size=5, shuffle=True))
    data = cohorts.client_value(*(part.numpy() for part in examples), SEED.numpy())
    found = process.get_model_weights(process.next(process.initialize(), [data]).state).trainable
    training = local_training.LocalTraining(model, setups.sgd().build(), 5)
    theta = tuple(map(tf.constant, model.initial_weights[0]))
    expected = tf.function(lambda: training.steps(training.initial_state(theta), examples, SEED, 0, 8).weights)()
    for ours, its in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, its, atol=1e-6)
    assert client_work.client_data_type(model).element["x"].dtype == np.int32


class _NoAttribute(L.Layer):
    def build(self, shape):
        self.mine = {"kernel": self.add_weight("kernel", (shape[-1], 5))}

    def call(self, x):
        return x @ self.mine["kernel"]


class _Block(L.Layer):
    """A layer with a Dropout layer of its own, as Keras' guides have it."""

    def __init__(self):
        super().__init__()
        self.dense, self.drop = L.Dense(6), L.Dropout(0.5)

    def call(self, x, training=None):
        return self.drop(self.dense(x), training=training)


REFUSED = {
    "BatchNormalization": (lambda: [L.Dense(5), L.BatchNormalization()], "use GroupNormalization"),
    "noise": (lambda: [L.GaussianNoise(0.1), L.Dense(5)], "draws at random"),
    "dropout inside": (lambda: [L.Reshape([8, 1]), L.LSTM(5, dropout=0.1)], "a Dropout layer"),
    "a Dropout layer inside": (lambda: [_Block(), L.Dense(5)], "'dropout.*' .* inside of another layer"),
    "a constraint": (lambda: [L.Dense(5, kernel_constraint="non_neg")], "a constraint on its weights"),
    "a penalty": (lambda: [L.Dense(5, kernel_regularizer="l2")], "losses of its own"),
    "no weights": (lambda: [L.Flatten()], "no trainable weights"),
    "no attribute": (lambda: [_NoAttribute()], "not an attribute of a layer"),
}


@pytest.mark.parametrize(("layers", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_would_not_equal_keras_is_refused_in_one_line(layers, hint):
    with pytest.raises(errors.UserError, match=hint) as refusal:
        _functional_form(_sequential([8], layers()))
    assert "\n" not in str(refusal.value)


def test_a_head_that_is_not_there_is_refused_with_the_layers_that_are():
    keras = _sequential([8], [L.Dense(5, name="last")])
    with pytest.raises(errors.UserError, match="it has last"):
        _functional_form(keras, head=["first"])
    with pytest.raises(errors.UserError, match="1 layers with weights"):
        _functional_form(keras, head=2)
