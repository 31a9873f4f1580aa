"""Outputs against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tff_personalization import metrics
from tff_personalization.models import outputs


def test_real_numbers_are_judged_by_squared_error_and_the_share_of_small_errors():
    rng = np.random.default_rng(1)
    said, right = rng.normal(size=(2, 50, 3)).astype(np.float32)
    said[0] = np.nan
    output = outputs.real_numbers(["a", "b", "c"], within=0.5, unit="cm")
    assert output.metric.name == "share within ±0.5 cm"
    assert output.scoring.score(said, right) == (np.abs(said - right) <= 0.5).sum()
    assert output.scoring.count_predictions(right) == 150
    np.testing.assert_allclose(output.scoring.loss(said[1:], right[1:]), np.mean((said - right)[1:] ** 2), rtol=1e-6)
    with pytest.raises(ValueError, match="within: a number above 0"):
        outputs.real_numbers(["a"], within=0)
    with pytest.raises(ValueError, match="one of the two"):
        outputs.real_numbers(["a"])


def test_the_absolute_error_is_summed_and_what_is_too_large_or_not_finite_counts_as_the_largest():
    scoring = outputs.real_numbers("ab", largest_error=2, unit="cm").scoring
    said, right = np.array([[1.0, 9], [np.nan, 3]], np.float32), np.array([[1.5, 0], [0, 4]], np.float32)
    assert float(scoring.score(said, right)) == 0.5 + 2 + 2 + 1
    assert scoring.score_dtype == tf.float32
    assert (scoring.metric.name, scoring.metric.higher_is_better) == ("absolute error in cm", False)


def test_several_labels_are_judged_one_by_one_as_numpy_does():
    logits, labels = np.array([[2.0, -1, 0.5], [-3, 4, np.nan]], np.float32), np.array([[1, 0, 0], [1, 1, 1]], np.int32)
    scoring = outputs.several_labels("abc").scoring
    assert int(scoring.score(logits, labels)) == 3  # a value that is not finite is no prediction
    assert int(scoring.count_predictions(labels)) == 6
    finite = logits[:1]
    probability = 1 / (1 + np.exp(-finite))
    expected = -np.where(labels[:1] == 1, np.log(probability), np.log(1 - probability)).mean()
    assert float(scoring.loss(finite, labels[:1])) == pytest.approx(expected, rel=1e-6)


def test_places_without_padding_all_count():
    scoring = outputs.classes_by_place("ab", 2).scoring
    logits = tf.constant([[[1.0, 0], [0, 1]]])
    assert int(scoring.score(logits, tf.constant([[0, 0]]))) == 1
    assert int(scoring.count_predictions(tf.constant([[0, 0]]))) == 2


@pytest.mark.parametrize(("higher_is_better", "worst"), [(True, 0), (False, 4)])
def test_a_metric_of_a_users_own_gives_predictions_that_are_not_finite_the_worst_score(higher_is_better, worst):
    metric = metrics.Metric("mine", higher_is_better, largest=4.0)
    output = outputs.real_numbers("ab", within=1).judged_by(
        metric, lambda said, right: tf.reduce_sum(tf.minimum(tf.abs(said - right), 4.0))
    )
    said, right = tf.constant([[1.0, 2], [np.nan, 2], [np.inf, 0]]), tf.constant([[1.5, 1], [2, 2], [0, 0]])
    assert float(output.scoring.score(said, right)) == 0.5 + 1 + 4 * worst
    assert float(output.scoring.score(said[1:], right[1:])) == 4 * worst


def test_a_share_of_ones_own_stays_a_count():
    wrong = metrics.Metric("error rate", higher_is_better=False)
    output = outputs.classes_by_place("abc", 2, padding=2).judged_by(
        wrong, lambda logits, labels: tf.reduce_sum(tf.cast(tf.argmax(logits, -1, tf.int32) != labels, tf.int32))
    )
    logits = tf.constant([[[1.0, 0, 0], [1, 0, 0]], [[np.nan, 0, 0], [1, 0, 0]]])
    found = output.scoring.score(logits, tf.constant([[0, 1], [0, 2]]))
    assert (int(found), found.dtype) == (2, tf.int32)  # padding is no prediction
