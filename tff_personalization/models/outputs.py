"""What a network predicts for an example, and its scoring: classes, several labels, or real numbers."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from tff_personalization import metrics
from tff_personalization.models import functional


@dataclasses.dataclass(frozen=True)
class Output:
    """The predictions of a task's networks.

    Attributes:
        names: of the classes or labels, one for each logit.
        label: the type of the right answer for one example.
        scoring: the loss, the right predictions and the number of predictions.
        words: what is predicted, for messages.
        activation: the name of the function from logits to probabilities.
        one_class: whether an example has exactly one class.
        by_place: whether there is a class at each place of an example, such as a text.
    """

    names: tuple[str, ...]
    label: tf.TensorSpec
    scoring: functional.Scoring
    words: str
    activation: str = "softmax"
    one_class: bool = False
    by_place: bool = False

    @property
    def metric(self) -> metrics.Metric:
        """What models are judged by."""
        return self.scoring.metric

    @property
    def y_spec(self) -> tf.TensorSpec:
        """The type of the labels of a batch."""
        return tf.TensorSpec([None, *self.label.shape], self.label.dtype)

    def judged_by(self, metric: metrics.Metric, score: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> "Output":
        """The same predictions, judged by another metric.

        Args:
            metric: its name, whether higher or lower is better, and the largest score.
            score: `(logits, labels)` of a batch to the sum of the scores of its predictions: int32 for a share of right
                predictions, else float32, each score from 0 to the metric's largest. It gets only examples whose
                logits are finite: the predictions of others have the worst score, 0 or the largest.
        """
        worst = 0.0 if metric.higher_is_better else metric.upper

        def score_all(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            logits = tf.convert_to_tensor(logits)
            finite = tf.reduce_all(tf.math.is_finite(logits), axis=list(range(1, logits.shape.rank)))
            total = tf.convert_to_tensor(score(tf.boolean_mask(logits, finite), tf.boolean_mask(labels, finite)))
            others = self.scoring.count_predictions(tf.boolean_mask(labels, ~finite))
            return total + tf.cast(worst * tf.cast(others, tf.float32), total.dtype)

        return dataclasses.replace(self, scoring=self.scoring._replace(metric=metric, score=score_all))


def classes(names: Sequence[str]) -> Output:
    """One class for each example. Labels are int32 scalars; the loss is the mean cross-entropy of softmax, in nats."""
    label = tf.TensorSpec([], tf.int32)
    return Output(
        tuple(map(str, names)), label, functional.ONE_PREDICTION, "one class for each example", one_class=True
    )


def classes_by_place(names: Sequence[str], length: int, padding: int | None = None, batch_size: int = 128) -> Output:
    """A class at each place of an example, such as the next word. Labels are int32 of shape (length,).

    A prediction is for one place. Accuracy is the share of right places over all examples; the loss is the mean over
    places.

    Args:
        names: of the classes.
        length: the number of places of an example.
        padding: the label of places that count neither in the loss nor in the accuracy; None if all count.
        batch_size: how many examples are evaluated at once.
    """

    def counted(labels: tf.Tensor) -> tf.Tensor:
        return tf.ones_like(labels, tf.bool) if padding is None else tf.not_equal(labels, padding)

    def mean_loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        counts = tf.cast(counted(labels), losses.dtype)
        return tf.math.divide_no_nan(tf.reduce_sum(losses * counts), tf.reduce_sum(counts))

    def count_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(tf.logical_and(functional.hits(logits, labels), counted(labels)), tf.int32))

    def count_predictions(labels: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(counted(labels), tf.int32))

    scoring = functional.Scoring(mean_loss, count_correct, count_predictions, batch_size)
    label = tf.TensorSpec([length], tf.int32)
    return Output(tuple(map(str, names)), label, scoring, "a class at each place of an example", by_place=True)


def several_labels(names: Sequence[str]) -> Output:
    """Any number of labels for an example, such as tags. Labels are int32 of 0 and 1, shape (len(names),).

    A prediction says whether one label applies: yes if its logit is above 0. Accuracy is the share of right predictions
    over all examples and labels; the loss is the mean cross-entropy of the sigmoid, in nats.
    """

    def mean_loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(
            tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.cast(labels, logits.dtype), logits=logits)
        )

    def count_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        right = tf.equal(logits > 0, tf.equal(labels, 1))
        # A logit that is not finite is no prediction.
        return tf.reduce_sum(tf.cast(tf.logical_and(right, tf.math.is_finite(logits)), tf.int32))

    scoring = functional.Scoring(mean_loss, count_correct, lambda labels: tf.size(labels))
    label = tf.TensorSpec([len(names)], tf.int32)
    return Output(tuple(map(str, names)), label, scoring, "several labels for each example", "sigmoid")


def real_numbers(
    names: Sequence[str], *, within: float | None = None, largest_error: float | None = None, unit: str = ""
) -> Output:
    """Real numbers for an example, as in regression. Labels are float32 of shape (len(names),).

    The loss is the mean squared error. A prediction is one number. The metric is over all examples and numbers. It is
    the share of predictions whose error is at most `within`, or the mean absolute error (lower is better). An
    error above `largest_error`, or one that is not finite, counts as `largest_error`, so that one outlier does not
    decide the mean.

    Args:
        names: the names of the numbers.
        within: the largest error of a right prediction, in the unit of the labels.
        largest_error: the largest absolute error that counts, in the unit of the labels.
        unit: the unit of the labels, for the metric's name.

    Raises:
        ValueError: neither or both of `within` and `largest_error` are given, or it is not above 0.
    """
    if (within is None) == (largest_error is None):
        raise ValueError("within, largest_error: give one of the two")
    for name, value in {"within": within, "largest_error": largest_error}.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}: a number above 0 expected, got {value}")

    def count_within(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        # An error that is not finite is not at most `within`.
        return tf.reduce_sum(tf.cast(tf.abs(values - labels) <= within, tf.int32))

    def sum_errors(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        errors = tf.abs(values - labels)
        return tf.reduce_sum(tf.where(errors <= largest_error, errors, largest_error))

    of_unit = f" {unit}" if unit else ""
    if within is None:
        metric = metrics.Metric(f"absolute error{of_unit and f' in{of_unit}'}", False, largest_error)
    else:
        metric = metrics.Metric(f"share within ±{within:g}{of_unit}")
    scoring = functional.Scoring(
        lambda values, labels: tf.reduce_mean(tf.math.squared_difference(values, labels)),
        sum_errors if within is None else count_within,
        lambda labels: tf.size(labels),
        metric=metric,
    )
    label = tf.TensorSpec([len(names)], tf.float32)
    return Output(tuple(map(str, names)), label, scoring, "real numbers for each example", "linear")
