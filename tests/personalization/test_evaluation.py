"""The evaluation computation against plain Keras, and its two releases against each other."""

import collections
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import global_weights
from tff_personalization.models import emnist_cnn
from tff_personalization.personalization import distributions, evaluation

pytestmark = pytest.mark.usefixtures("worker")
CLASSES, RATE, BATCH, EPOCHS = 5, 0.05, 4, 3
STRATEGIES = ("fine_tune", "fine_tune_head", "local_only")
SGD = tff.learning.optimizers.build_sgdm(RATE)
MODEL = emnist_cnn.build_cnn(CLASSES, np.random.default_rng(0), dropout=False)
THETA = MODEL.initial_weights[0]


def client(index, train_size, test_size, seed=(5, 6)):
    rng = np.random.default_rng(index)

    def part(size):
        labels = rng.integers(0, CLASSES, size).astype(np.int32)
        images = rng.integers(0, 100, (size, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[5 * label : 5 * label + 5] += 140
        return images.astype(np.uint8), labels

    return index, part(train_size), part(test_size), np.array(seed, np.int32)


def value(index, train, test, seed):
    return collections.OrderedDict(
        index=np.int32(index),
        seed=seed,
        test=test,
        train=train,
    )


@functools.cache
def build(release, strategies=STRATEGIES, added=""):
    """An evaluation of the CNN, built once. Added global weights have the model's structure."""
    weights = global_weights.GlobalWeights(THETA, added, (THETA,) if added else ())
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "strategies": strategies, "release": release}
    return evaluation.build_personalization_evaluation(MODEL, SGD, **settings, initial_weights=weights)


def evaluate(clients, release, strategies=STRATEGIES, weights=None):
    weights = weights or global_weights.GlobalWeights(THETA)
    computation = build(release, strategies, weights.name)
    return computation(tff.learning.models.ModelWeights(weights.flat, ()), [value(*c) for c in clients])


def keras_model(weights, trained):
    """The CNN in Keras, without dropout; only the last `trained` layers are trained."""
    layers = [
        tf.keras.layers.Conv2D(32, 3, activation="relu", input_shape=(28, 28, 1)),
        tf.keras.layers.Conv2D(64, 3, activation="relu"),
        tf.keras.layers.MaxPool2D(),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(128, activation="relu"),
        tf.keras.layers.Dense(CLASSES),
    ]
    model = tf.keras.Sequential(layers)
    model.set_weights(weights)
    for layer in layers[: len(layers) - trained]:
        layer.trainable = False
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(RATE), loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize(("strategy", "trained_layers"), [("fine_tune", 6), ("fine_tune_head", 1)])
def test_fine_tuning_equals_plain_keras_on_one_client(strategy, trained_layers):
    """Keras is fed the same permutations; accuracy and loss agree before, and after every epoch."""
    index, train, test, seed = client(3, 11, 8)
    noise = np.random.default_rng(4)
    weights = tuple(w + 0.01 * noise.normal(size=w.shape).astype(np.float32) for w in THETA)
    (record,) = evaluate([(index, train, test, seed)], "records", (strategy,), global_weights.GlobalWeights(weights))
    keras = keras_model(weights, trained_layers)
    for epoch in range(EPOCHS + 1):
        loss, accuracy = keras.evaluate(test[0][..., None] / 255.0, test[1], verbose=0, batch_size=100)
        assert record["correct"][0, epoch] == round(accuracy * 8)
        assert record["loss_sum"][0, epoch] / 8 == pytest.approx(loss, rel=1e-4)
        order = tf.random.experimental.stateless_shuffle(tf.range(11), tf.random.fold_in(seed, -1 - epoch)).numpy()
        for start in range(0, 11, BATCH):
            batch = order[start : start + BATCH]
            keras.train_on_batch(train[0][batch][..., None] / 255.0, train[1][batch])
    assert abs(record["loss_sum"][0, EPOCHS] - record["loss_sum"][0, 0]) > 0.02  # far above the tolerance


def test_local_only_starts_from_the_untrained_model_whatever_the_global_model_is():
    clients = [client(1, 9, 6)]
    from_initial, from_other = (
        evaluate(clients, "records", ("local_only",), global_weights.GlobalWeights(weights))[0]
        for weights in (THETA, tuple(w + 0.05 for w in THETA))
    )
    np.testing.assert_array_equal(from_initial["loss_sum"], from_other["loss_sum"])


def test_strategies_in_one_pass_measure_what_each_measures_by_itself():
    clients = [client(0, 10, 7), client(1, 6, 5)]
    together = evaluate(clients, "records")
    for i, strategy in enumerate(STRATEGIES):
        for one, all_of_them in zip(evaluate(clients, "records", (strategy,)), together, strict=True):
            np.testing.assert_array_equal(one["correct"][0], all_of_them["correct"][i])
            np.testing.assert_array_equal(one["loss_sum"][0], all_of_them["loss_sum"][i])


def test_records_carry_the_clients_identity():
    clients = [client(7, 5, 4), client(2, 8, 3)]
    records = evaluate(clients, "records")
    assert [(r["index"], r["train_examples"], r["test_examples"]) for r in records] == [(7, 5, 4), (2, 8, 3)]


def test_a_client_without_test_data_is_left_out_of_the_averages_and_counted():
    full, without = client(0, 6, 5), client(1, 6, 0)
    alone = evaluate([full], "aggregates")
    both = evaluate([full, without], "aggregates")
    assert (both["clients"], both["clients_without_test_examples"]) == (1, 1)
    for epoch in range(EPOCHS + 1):
        a, b = (distributions.from_sums(sums, 0, epoch) for sums in (alone, both))
        np.testing.assert_array_equal(a.histogram, b.histogram)
        assert (a.mean, a.sd, a.loss, a.gain, a.clients) == (b.mean, b.sd, b.loss, b.gain, b.clients)
    table = distributions.client_table(evaluate([full, without], "records"), ["a", "b"], STRATEGIES)
    assert distributions.from_table(table, "fine_tune", 0, 100).clients == 1
    assert table[table.client == "b"].accuracy.isna().all()


def test_a_client_with_very_many_right_answers_is_in_its_bin():
    right = 30_000_000  # a hundred times as many do not fit into 32 bits
    sums = evaluation.client_sums(tf.constant([[right]]), tf.constant([[1.0]]), tf.constant(2 * right))
    assert np.flatnonzero(sums["histogram"]).tolist() == [50]


def test_no_value_of_a_client_leaves_it_in_the_aggregates():
    """The type of the result names the server and has no sequence, list or index of clients in it."""
    result = build("aggregates").type_signature.result
    assert result.placement is tff.SERVER
    assert "index" not in dir(result.member)
    shapes = {name: tuple(getattr(result.member, name).shape) for name in dir(result.member)}
    assert shapes["histogram"] == (3, EPOCHS + 1, evaluation.HISTOGRAM_BINS)
    assert all(shape in ((), (3, EPOCHS + 1), (3, EPOCHS + 1, evaluation.HISTOGRAM_BINS)) for shape in shapes.values())


def test_an_unknown_release_is_refused():
    with pytest.raises(ValueError, match="release"):
        evaluation.build_personalization_evaluation(
            MODEL, SGD, epochs=1, batch_size=4, strategies=("fine_tune",), release="everything"
        )


@pytest.mark.parametrize("rate", [RATE, 0.0])
def test_the_strategy_meta_sgd_with_equal_rates_is_fine_tuning_at_that_rate(rate):
    """With the personalization optimizer's rate. With rates of 0 except the head's, it is fine-tuning of the head."""
    clients = [client(1, 9, 6)]
    rates = tuple(np.full_like(w, RATE if i >= 6 else rate) for i, w in enumerate(THETA))
    (learnt,) = evaluate(clients, "records", ("meta_sgd",), global_weights.GlobalWeights(THETA, "rates", (rates,)))
    (fixed,) = evaluate(clients, "records", ("fine_tune" if rate else "fine_tune_head",))
    np.testing.assert_allclose(learnt["loss_sum"], fixed["loss_sum"], rtol=1e-4)
