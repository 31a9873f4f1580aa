"""Shared parts of the meta-learning methods: two parts of a client's data, and the update from a meta-gradient.

θ: global model, U: local adaptation, K steps on the support part, L: loss on the query part
meta-objective: mean over clients of L(U(θ)), the loss on new data *after* adaptation
its gradient:   U′(θ)ᵀ ∇L(φ) at φ = U(θ); FOMAML takes U′ for the identity, MAML does not
"""

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training
from tff_personalization.algorithms import client_work
from tff_personalization.models import functional


def support_and_query(
    examples: local_training.Examples, query_fraction: float, seed: tf.Tensor
) -> tuple[local_training.Examples, local_training.Examples]:
    """Deals a client's examples at random into a support part, to adapt to, and a query part, to evaluate on.

    Args:
        examples: the client's examples, n of them.
        query_fraction: the share of the query part, rounded; each part gets at least one example. With 0, or for a
            client with a single example, both parts are all of the examples.
        seed: int32, shape (2,), from which the parts are drawn.
    """
    count = tf.shape(examples.y)[0]
    if query_fraction == 0:
        return examples, examples
    share = tf.cast(tf.round(query_fraction * tf.cast(count, tf.float32)), tf.int32)
    queries = tf.where(count > 1, tf.clip_by_value(share, 1, tf.maximum(count - 1, 1)), count)
    order = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
    support = tf.where(count > 1, queries, 0)
    return local_training.take(examples, order[support:]), local_training.take(examples, order[:queries])


def draw_batch(examples: local_training.Examples, size: int, seed: tf.Tensor) -> local_training.Examples:
    """Draws `size` examples at random without replacement, or all if there are no more."""
    order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(examples.y)[0]), seed)
    return local_training.take(examples, order[:size])


def update_from(
    meta_gradient: client_work.Weights,
    scale: tf.Tensor | float,
    adapted: local_training.LocalState,
    query: local_training.MeanGradient,
) -> client_work.ClientUpdate:
    """The update of a client. Its delta is `scale` times the meta-gradient; its visits are those of both parts."""
    return client_work.ClientUpdate(
        tuple(scale * part for part in meta_gradient),
        adapted.loss_sum + query.loss_sum,
        adapted.correct + query.correct,
        adapted.predictions + query.predictions,
        adapted.examples + query.examples,
    )


def training_at_rates(
    model: functional.Classifier, batch_size: int, *, shuffle: bool = True
) -> local_training.LocalTraining:
    """The inner loop of Meta-SGD; adjust its steps with `at_rates`."""
    return local_training.LocalTraining(model, tff.learning.optimizers.build_sgdm(1.0), batch_size, shuffle=shuffle)


def at_rates(rates: client_work.Weights) -> local_training.AdjustFn:
    """Makes `training_at_rates` take each weight's step at the weight's own rate."""
    return lambda _, gradients: tuple(rate * g for rate, g in zip(rates, gradients, strict=True))
