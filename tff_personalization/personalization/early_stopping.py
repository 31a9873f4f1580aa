"""Fine-tuning with early stopping: each client holds back some of its train examples to choose the epoch.

    H ← a random share of client i's train part, rounded down to whole examples;  T ← the rest
    for e = 1 … E:
        φ_e ← one epoch of fine-tuning on T, starting at φ_{e−1};  φ_0 = θ
    the model of epoch e is φ_b with b the epoch of 0 … e that is best on H

Best is the epoch with the most right answers (or the best other metric) on H, then the least loss on H, then the first.
So a client that fine-tuning would hurt can keep the global model. A client with too few train examples to hold one back
(fewer than 1 / share) keeps the global model.
"""

import tensorflow as tf

from tff_personalization import local_training, metrics, rounding
from tff_personalization.personalization import adaptation
from tff_personalization.personalization.adaptation import Client, Curve, FineTuning, Strategy, Tuning
from tff_personalization.settings import Setting


class Settings(FineTuning):
    """The settings of early stopping."""

    early_stopping_fraction = Setting(
        0.2,
        "Share of its train part that each client holds back with --strategies=fine_tune_early_stopping.",
        theme="personalization",
        least=0.01,
        most=0.9,
    )


def _curve(client: Client, tuning: Tuning[Settings]) -> Curve:
    held_back, rest = split(client.seed, client.train, tuning.settings.early_stopping_fraction)
    training = local_training.LocalTraining(client.model, tuning.optimizer, tuning.batch_size)

    def judge(weights: adaptation.Weights) -> tuple[Curve, Curve]:
        held = Curve(*local_training.evaluate(client.model, weights, held_back))
        return client.judge(client.model, weights, client.test), held

    before = client.judgement_of_theta, judge(client.theta)[1]
    test, held = adaptation.curve_by_epoch(client, tuning, training, client.theta, judge, train=rest, before=before)
    best = best_so_far(held.correct, held.loss_sum, client.model.scoring.metric)
    return tf.nest.map_structure(lambda judgements: tf.gather(judgements, best), test)


def split(
    client_seed: tf.Tensor, train: local_training.Examples, share: float
) -> tuple[local_training.Examples, local_training.Examples]:
    """The held-back examples and the rest, drawn by the client's seed."""
    count = tf.shape(train.y)[0]
    # A number that no step or epoch of training folds into the seed.
    seed = tf.random.fold_in(client_seed, tf.int32.min)
    order = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
    size = rounding.floor_of_share(share, count)
    return local_training.take(train, order[:size]), local_training.take(train, order[size:])


def best_so_far(correct: tf.Tensor, loss_sum: tf.Tensor, metric: metrics.Metric = metrics.ACCURACY) -> tf.Tensor:
    """For each epoch e, the one of 0 … e with the best `correct`, of those the least `loss_sum`, of those the first.

    Args:
        correct: shape (E + 1,).
        loss_sum: float32, shape (E + 1,); one that is not finite counts as the greatest.

    Returns:
        int32, shape (E + 1,).
    """
    loss_sum = tf.where(tf.math.is_finite(loss_sum), loss_sum, loss_sum.dtype.max)
    by_loss = tf.argsort(loss_sum, stable=True)
    order = tf.gather(by_loss, tf.argsort(metric.gain(tf.gather(correct, by_loss), 0), stable=True))
    rank = tf.math.invert_permutation(order)
    # Row e has the ranks of the epochs 0 … e; later epochs rank last.
    seen = tf.sequence_mask(tf.range(1, tf.size(rank) + 1), tf.size(rank))
    return tf.argmin(tf.where(seen, rank, tf.size(rank)), axis=1, output_type=tf.int32)


STRATEGY = Strategy(
    "fine-tune all layers; stop early by accuracy on examples that the client holds back",
    _curve,
    settings=Settings,
    gives_weights=True,
)
