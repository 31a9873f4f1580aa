"""A TFF functional model whose training pass takes the seed of its dropout.

TFF's `FunctionalModel` takes no seed, so its dropout cannot be repeated. `SeededModel` keeps that interface, so it
works with any TFF algorithm, and adds `logits`, which depends only on its arguments.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import metrics

Weights = tuple[Any, ...]
StemFn = Callable[[Weights, tf.Tensor], tf.Tensor]
LogitsFn = Callable[[Weights, tf.Tensor, tf.Tensor | None], tf.Tensor]
LABELS = tf.TensorSpec([None], tf.int32)


class Scoring(NamedTuple):
    """Computes the loss and the right predictions of a batch's logits.

    Attributes:
        loss: `(logits, labels) -> float32`, the mean loss (nats) of a prediction.
        score: `(logits, labels) -> int32 or float32`, the sum of the metric's scores: the number of right predictions,
            unless the metric is no share of these.
        count_predictions: `(labels) -> int32`, the number of predictions.
        batch_size: how many examples are evaluated at once, to limit memory.
        metric: the mean of the scores.
    """

    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    score: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    count_predictions: Callable[[tf.Tensor], tf.Tensor]
    batch_size: int = 512
    metric: metrics.Metric = metrics.ACCURACY

    @property
    def score_dtype(self) -> tf.DType:
        """The type of a sum of scores: right predictions are counted."""
        return tf.int32 if self.metric.is_share else tf.float32


class Classifier(Protocol):
    """The interface that training and evaluation need: a `SeededModel`, or any function to logits."""

    @property
    def logits(self) -> LogitsFn: ...

    @property
    def scoring(self) -> Scoring: ...


class PlainClassifier(NamedTuple):
    """A classifier from a function and its scoring, such as the part of a model that maps features to logits."""

    logits: LogitsFn
    scoring: Scoring


class SeededModel(tff.learning.models.FunctionalModel):
    """A classifier: trainable weights, a function from examples (such as images) to logits, and their scoring.

    The function is a stem, which has no randomness, and the layers after it. While the stem's weights do not change, an
    example's features do not change either, and are computed only once.

    Attributes:
        stem: `(weights, x) -> features`, of shape (batch, …), from the first `stem_size` weights: float32, or `x`
            itself in a network without a stem.
        after_stem: the rest, whose `logits` takes features in place of examples.
        scoring: loss, right predictions and number of predictions.
        stem_size: how many of the first weights make up the stem.
        head: which weights (the last ones) make up the head, the part that maps features to logits.
        rest: which weights do not belong to the head.
        normalization: the places of the weights of normalization layers: scales and offsets.
        dense_head: False if a head of the weights of a dense layer is not the last function of the network.
        to_keras: makes a Keras model of ordinary layers with the given weights; None if there is none.
        rebuilt: makes the network again, with the same weights, from the operations of another runtime; None if it has
            other operations.
    """

    def __init__(
        self,
        initial_weights: tuple[np.ndarray, ...],
        stem: StemFn,
        logits_after_stem: LogitsFn,
        *,
        stem_size: int,
        head_size: int,
        x_spec: tf.TensorSpec,
        y_spec: tf.TensorSpec = LABELS,
        scoring: Scoring | None = None,
        normalization: Sequence[int] = (),
        dense_head: bool = True,
        to_keras: Callable[[Sequence[np.ndarray]], tf.keras.Model] | None = None,
        rebuilt: "Callable[[Operations], SeededModel] | None" = None,
    ):
        """See the class.

        Args:
            initial_weights: the weights before training.
            logits_after_stem: `(weights, features, dropout_seed) -> logits`.
            head_size: how many of the last weights make up the head.
            x_spec: the type of a batch of examples.
            y_spec: the type of their labels; by default one class for each example.
            scoring: by default one prediction for each example.
            stem, stem_size, normalization, dense_head, to_keras, rebuilt: see the class.
        """
        self.to_keras = to_keras
        self.rebuilt = rebuilt
        self.stem = stem
        self.scoring = scoring or ONE_PREDICTION
        self.after_stem = PlainClassifier(logits_after_stem, self.scoring)
        self.stem_size = stem_size
        self.head = slice(len(initial_weights) - head_size, None)
        self.rest = slice(self.head.start)
        self.normalization = tuple(normalization)
        self.dense_head = dense_head

        @tf.function(autograph=False)
        def predict_on_batch(model_weights: tuple[Weights, Weights], x: tf.Tensor, training: bool) -> tf.Tensor:
            seed = tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32) if training else None
            return self.logits(model_weights[0], x, seed)

        super().__init__(
            initial_weights=(initial_weights, ()),
            predict_on_batch_fn=predict_on_batch,
            loss_fn=lambda output, label, sample_weight=None: self.scoring.loss(output, label),
            input_spec=(x_spec, y_spec),
        )

    def logits(self, weights: Weights, x: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        """Logits, float32 of shape (batch, …, classes): one row for each prediction.

        Args:
            weights: all trainable weights.
            x: examples of the model's input spec.
            dropout_seed: int32, shape (2,), in a training pass; None in an evaluation pass.
        """
        return self.after_stem.logits(weights, self.stem(weights, x), dropout_seed)


def from_tff(
    model: tff.learning.models.FunctionalModel,
    scoring: Scoring,
    x_spec: tf.TensorSpec,
    y_spec: tf.TensorSpec,
    head_size: int = 2,
) -> SeededModel:
    """Makes a seeded model from TFF's functional model. The model's own randomness does not follow the seed.

    Args:
        model: gives logits, and has the loss to minimize: the mean over a batch.
        scoring: counts right predictions.
        x_spec: the type of a batch of examples, which are cast to the model's input type.
        y_spec: the type of their labels.
        head_size: how many of its last weights make up the head, such as a kernel and a bias.
    """
    trainable, fixed = model.initial_weights

    def logits(weights: Weights, x: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        x = tf.cast(x, model.input_spec[0].dtype)
        return model.predict_on_batch((tuple(weights), fixed), x, dropout_seed is not None)

    return SeededModel(
        tuple(trainable),
        lambda weights, x: x,
        logits,
        stem_size=0,
        head_size=head_size,
        x_spec=x_spec,
        y_spec=y_spec,
        scoring=scoring._replace(loss=model.loss),
    )


def has_dense_head(model: SeededModel) -> bool:
    """Whether the head is one dense layer: a kernel (units, outputs) and a bias (outputs,)."""
    shapes = [weight.shape for weight in model.initial_weights[0][model.head]]
    return model.dense_head and len(shapes) == 2 and len(shapes[0]) == 2 and shapes[1] == shapes[0][1:]


def without_head(model: SeededModel, weights: Weights) -> Weights:
    """The weights with the identity in place of the head, a dense layer: the logits are then the head's input."""
    units = weights[model.head][0].shape[0]
    return (*weights[model.rest], tf.eye(units), tf.zeros([units]))


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean softmax cross-entropy, in nats, of `logits` (batch, classes) against int32 `labels` (batch,)."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def hits(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Which of `labels`, of any shape, are the argmax of `logits`, shape (…, classes): bool, shape of `labels`.

    A row of logits that is not finite predicts no class; its argmax would be the first class.
    """
    # tf.equal: in the graphs that TFF builds, `==` compares tensors by identity.
    matches = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels)
    return tf.logical_and(matches, tf.reduce_all(tf.math.is_finite(logits), axis=-1))


def count_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """int32: how many of `labels`, shape (batch,), are the argmax of their row of `logits`."""
    return tf.reduce_sum(tf.cast(hits(logits, labels), tf.int32))


ONE_PREDICTION = Scoring(cross_entropy, count_correct, lambda labels: tf.shape(labels)[0])
"""One prediction for each example: mean cross-entropy and accuracy over examples."""


def dropout(h: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Inverted dropout of `h`, float32 of shape (batch, units): a unit is zeroed with probability `rate`, else scaled.

    One random byte decides each unit, which takes a third of the time of TensorFlow's random float. So `rate` must be a
    multiple of 1/256 and `units` a multiple of 4. `seed` is int32 of shape (2,).
    """
    units = h.shape[1]
    if (256 * rate) % 1 or units is None or units % 4:
        raise ValueError(f"rate: a multiple of 1/256, units: a multiple of 4 expected, got {rate} and {units}")
    words = tf.random.stateless_uniform([tf.shape(h)[0], units // 4], seed, minval=None, maxval=None, dtype=tf.int32)
    keep = tf.reshape(tf.bitcast(words, tf.uint8), [-1, units]) >= round(256 * rate)
    return h * (tf.cast(keep, tf.float32) / (1 - rate))


def max_pool(h: tf.Tensor) -> tf.Tensor:
    """The maximum of each 2×2 square of `h`, float32 of shape (batch, 2r, 2c, channels): shape (batch, r, c, channels).

    Value and gradient are those of `tf.nn.max_pool2d`: if several entries of a square are largest, the first one gets
    the gradient. TensorFlow's own gradient searches the maxima again, one by one, on one thread. That takes a sixth of
    a training step of the paper's network.
    """
    _, rows, columns, channels = h.shape

    @tf.custom_gradient
    def pool(h: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        pooled = tf.nn.max_pool2d(h, 2, 2, "VALID")

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            squares = tf.reshape(h, [-1, rows // 2, 2, columns // 2, 2, channels])
            left, parts = upstream, []
            for i, j in ((0, 0), (0, 1), (1, 0)):
                part = tf.where(squares[:, :, i, :, j] >= pooled, left, tf.zeros_like(left))
                left -= part  # exactly zero where this entry took it
                parts.append(part)
            upper, lower = tf.stack(parts[:2], axis=3), tf.stack([parts[2], left], axis=3)
            return tf.reshape(tf.stack([upper, lower], axis=2), tf.shape(h))

        return pooled, gradient

    return pool(h)


def conv2d(h: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolution of `h` (batch, rows, columns, inputs) with `kernel` (k, k, inputs, outputs), without padding."""
    return tf.nn.conv2d(h, kernel, 1, "VALID")


def group_norm(h: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, groups: int, epsilon: float = 1e-5) -> tf.Tensor:
    """Group normalization of `h`, float32 of shape (batch, rows, columns, channels).

    Wu and He (2018, arXiv 1803.08494). Each example's channels are divided into `groups` groups of neighbours. Each
    group gets mean 0 and variance 1 over its channels and all places. Then each channel is scaled and shifted. No
    statistics are kept, so training and evaluation are the same. An example's result does not depend on other examples.

    Args:
        h: the input.
        scale: γ, shape (channels,).
        offset: β, shape (channels,).
        groups: divides the number of channels.
        epsilon: is added to the variance.
    """
    _, rows, columns, channels = h.shape
    grouped = tf.reshape(h, [-1, rows * columns, groups, channels // groups])
    mean, variance = tf.nn.moments(grouped, [1, 3], keepdims=True)
    scale, offset = (tf.reshape(w, [groups, channels // groups]) for w in (scale, offset))
    normalized = tf.nn.batch_normalization(grouped, mean, variance, offset, scale, epsilon)
    return tf.reshape(normalized, [-1, rows, columns, channels])


def dense(h: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """`h` (batch, inputs) times `kernel` (inputs, outputs), plus `bias` (outputs,)."""
    return tf.matmul(h, kernel) + bias


class Operations(NamedTuple):
    """The operations of networks that other runtimes than TensorFlow lack, or whose gradient they lack.

    Attributes:
        conv2d: as `conv2d`.
        max_pool: as `max_pool`.
        dense: as `dense`.
        relu: as `tf.nn.relu`.
        dropout: as `dropout`.
        fold_in: `(seed, number) -> seed`, as `tf.random.fold_in`.
    """

    conv2d: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    max_pool: Callable[[tf.Tensor], tf.Tensor]
    dense: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
    relu: Callable[[tf.Tensor], tf.Tensor]
    dropout: Callable[[tf.Tensor, float, tf.Tensor], tf.Tensor]
    fold_in: Callable[[tf.Tensor, int], tf.Tensor]


TENSORFLOW = Operations(conv2d, max_pool, dense, tf.nn.relu, dropout, tf.random.fold_in)


def glorot_uniform(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A float32 kernel of the given shape (…, inputs, outputs), drawn as Glorot and Bengio (2010), equation 16."""
    receptive_field = int(np.prod(shape[:-2]))
    limit = np.sqrt(6 / (receptive_field * (shape[-2] + shape[-1])))
    return rng.uniform(-limit, limit, shape).astype(np.float32)
