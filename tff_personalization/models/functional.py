"""A TFF functional model whose training pass takes the seed of its dropout.

TFF's `FunctionalModel` has no place for a seed, so its dropout cannot be repeated. `SeededModel` keeps that
interface, for use with any TFF algorithm, and adds `logits`, which is a function of its arguments alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

Weights = tuple[Any, ...]
LogitsFn = Callable[[Weights, tf.Tensor, tf.Tensor | None], tf.Tensor]


class SeededModel(tff.learning.models.FunctionalModel):
    """A classifier: trainable weights, a function from images to logits, and cross-entropy loss.

    Attributes:
        logits: `(weights, x, dropout_seed) -> logits`, float32 of shape (batch, classes). `dropout_seed` is an int32
            tensor of shape (2,) in a training pass and None in an evaluation pass.
        head_size: how many of the last weights make up the head, the part that maps features to logits.
    """

    def __init__(
        self, initial_weights: tuple[np.ndarray, ...], logits: LogitsFn, head_size: int, x_spec: tf.TensorSpec
    ):
        self.logits = logits
        self.head_size = head_size

        @tf.function
        def predict_on_batch(model_weights, x, training):
            seed = tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32) if training else None
            return logits(model_weights[0], x, seed)

        super().__init__(
            initial_weights=(initial_weights, ()),
            predict_on_batch_fn=predict_on_batch,
            loss_fn=lambda output, label, sample_weight=None: cross_entropy(output, label),
            input_spec=batch_spec(x_spec),
        )


def batch_spec(x_spec: tf.TensorSpec) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    """The type of a batch `(x, y)`: images as `x_spec` says, labels int32 of shape (batch,)."""
    return x_spec, tf.TensorSpec([None], tf.int32)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean softmax cross-entropy, in nats, of `logits` (batch, classes) against int32 `labels` (batch,)."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def dropout(h: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Inverted dropout of `h`, float32 of shape (batch, units): a unit is zeroed with probability `rate`, else scaled.

    One random byte decides each unit, which costs a third of TensorFlow's one float; so `rate` must be a multiple
    of 1/256 and `units` one of 4. `seed` is int32 of shape (2,).
    """
    units = h.shape[1]
    if (256 * rate) % 1 or units is None or units % 4:
        raise ValueError(f"rate: a multiple of 1/256, units: a multiple of 4 expected, got {rate} and {units}")
    words = tf.random.stateless_uniform([tf.shape(h)[0], units // 4], seed, minval=None, maxval=None, dtype=tf.int32)
    keep = tf.reshape(tf.bitcast(words, tf.uint8), [-1, units]) >= round(256 * rate)
    return h * (tf.cast(keep, tf.float32) / (1 - rate))


def glorot_uniform(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A float32 kernel of the given shape (…, inputs, outputs), drawn as Glorot and Bengio (2010), equation 16."""
    receptive_field = int(np.prod(shape[:-2]))
    limit = np.sqrt(6 / (receptive_field * (shape[-2] + shape[-1])))
    return rng.uniform(-limit, limit, shape).astype(np.float32)
