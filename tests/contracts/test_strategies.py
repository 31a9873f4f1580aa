"""The contract of every strategy, including the example plugin's. All are evaluated in one pass."""

import collections

import numpy as np
import pytest
import tensorflow_federated as tff

from tests.contracts import tiny_cnn
from tests.personalization import softmax_regression
from tff_personalization import global_weights
from tff_personalization.personalization import distributions, evaluation
from tff_personalization.personalization.strategies import STRATEGIES

CLASSES, RATE, EPOCHS = 5, 0.2, 2
VALUES = {**softmax_regression.VALUES, "example_share": 0.5}  # a plugin's too
NAMES = [*STRATEGIES, "recentre"]
EVERY = pytest.mark.parametrize("strategy", NAMES)


def part(size, seed, brightness=1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, size).astype(np.int32)
    images = rng.integers(0, 100, (size, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[5 * label : 5 * label + 5] += 140
    return (brightness * images).astype(np.uint8), labels


def client(train, test, index=0, brightness=1):
    return collections.OrderedDict(
        index=np.int32(index),
        seed=np.array([5, index], np.int32),
        test=part(test, 2 * index, brightness),
        train=part(train, 2 * index + 1, brightness),
    )


MODEL = tiny_cnn.build(CLASSES, np.random.default_rng(0))
THETA = tiny_cnn.build(CLASSES, np.random.default_rng(1)).initial_weights[0]
# What methods add to the global weights, by the name under which strategies need it.
ADDED = {
    "": (),
    "rates": (tuple(np.full_like(w, RATE) for w in THETA),),
    "several models": (tuple(-w for w in THETA),),
}


@pytest.fixture(scope="module")
def evaluate(plugin, worker):
    """Evaluates clients with all strategies, in one computation for each kind of global weights; built once."""
    assert set(NAMES) == set(STRATEGIES)
    built = {}

    def evaluate(needs, clients, release="records", theta=THETA):
        weights = global_weights.GlobalWeights(theta, needs, ADDED[needs])
        names = [name for name in NAMES if STRATEGIES[name].needs == needs]
        if (needs, release) not in built:
            built[needs, release] = evaluation.build_personalization_evaluation(
                MODEL,
                tff.learning.optimizers.build_sgdm(RATE),
                epochs=EPOCHS,
                batch_size=4,
                strategies=names,
                release=release,
                own_settings=lambda group: group.read(VALUES),
                initial_weights=weights,
            )
        return names, built[needs, release](tff.learning.models.ModelWeights(weights.flat, ()), clients)

    return evaluate


@pytest.fixture
def judge(evaluate, strategy):
    """The strategy's `correct` and `loss_sum` of each client, shape (clients, epochs + 1)."""

    def judge(clients, **more):
        names, records = evaluate(STRATEGIES[strategy].needs, clients, **more)
        return tuple(
            np.stack([record[key][names.index(strategy)] for record in records]) for key in ("correct", "loss_sum")
        )

    return judge


@EVERY
def test_adapting_lowers_the_loss_on_the_train_part(judge, strategy):
    of_train = client(24, 0)
    of_train["test"] = of_train["train"]
    _, losses = judge([of_train])
    assert losses[0, -1] < losses[0, 0]


@pytest.mark.parametrize("strategy", [name for name in NAMES if name != "best_cluster"])
def test_it_begins_with_the_global_model_unless_it_says_otherwise(judge, evaluate, strategy):
    of_global_model = evaluate("", [client(12, 9)])[1][0]["loss_sum"][NAMES.index("fine_tune"), 0]
    begins_elsewhere = strategy in ("local_only", "reconstruct")
    assert (judge([client(12, 9)])[1][0, 0] != of_global_model) == begins_elsewhere


def test_no_strategy_equals_another(evaluate):
    names, (record,) = evaluate("", [client(12, 9)])
    assert len(set(record["loss_sum"][:, -1])) == len(names)


@EVERY
def test_a_client_without_train_examples_keeps_the_model_that_it_began_with(judge):
    correct, losses = judge([client(0, 6)])
    assert (correct == correct[:, :1]).all()
    assert (losses == losses[:, :1]).all()


@EVERY
def test_a_client_without_test_examples_has_nothing_right_and_no_loss(judge):
    correct, losses = judge([client(6, 0)])
    assert not correct.any()
    assert not losses.any()


@EVERY
def test_a_client_with_one_example_of_each_part_has_a_finite_loss(judge):
    correct, losses = judge([client(1, 1)])
    assert np.isfinite(losses).all()
    assert set(correct.flat) <= {0, 1}


@EVERY
def test_a_model_that_is_not_finite_gets_nothing_right_and_harms_no_other_client(judge, strategy):
    """Under filters of 1e38, features of bright images overflow, and those of black images are zero."""
    huge = (np.full_like(THETA[0], 1e38), *THETA[1:])
    bright, black = client(6, 7, 1), client(6, 5, 2, brightness=0)
    correct, losses = judge([bright, black], theta=huge)
    alone = judge([black], theta=huge)
    np.testing.assert_array_equal(correct[1:], alone[0])
    np.testing.assert_array_equal(losses[1:], alone[1])
    assert np.isfinite(losses[1]).all()
    if strategy not in ("local_only", "best_cluster"):  # which begin with other models
        assert not correct[0].any()
        assert not np.isfinite(losses[0]).any()


@EVERY
def test_again_and_beside_other_clients_it_gives_the_same_numbers(judge):
    one, other = client(9, 7, 1), client(5, 4, 2)
    first, again, beside = judge([one]), judge([one]), judge([other, one])
    for a, b, c in zip(first, again, beside, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[0], c[1])


@pytest.mark.parametrize("needs", ADDED)
def test_aggregates_are_what_the_records_add_up_to(evaluate, needs):
    clients = [client(4 + i, 3 * i, i) for i in range(5)]  # the first has no test examples
    names, records = evaluate(needs, clients)
    _, sums = evaluate(needs, clients, "aggregates")
    assert (sums["clients"], sums["clients_without_test_examples"]) == (4, 1)
    table = distributions.client_table(records, list("abcde"), names)
    for s, name in enumerate(names):
        for epoch in range(EPOCHS + 1):
            exact = distributions.from_table(table, name, epoch, evaluation.HISTOGRAM_BINS)
            from_sums = distributions.from_sums(sums, s, epoch)
            np.testing.assert_array_equal(from_sums.histogram, exact.histogram)
            for figure in ("clients", "mean", "weighted_mean", "loss", "gain", "share_gaining", "share_hurt"):
                assert getattr(from_sums, figure) == pytest.approx(getattr(exact, figure), rel=1e-5, abs=1e-5), figure
            for figure in ("sd", "gain_sd"):  # a difference of squares of float32
                assert getattr(from_sums, figure) == pytest.approx(getattr(exact, figure), abs=1e-3), figure
