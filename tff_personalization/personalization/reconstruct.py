"""Reconstruction of the head as in FedRecon, Singhal et al. (NeurIPS 2021, arXiv 2102.03448).

    ψ ← θ; for `head_epochs` epochs: train the head of ψ on client i's train part; the rest is fixed
    `reconstruct_head`: the model is ψ from epoch 1 on; epoch 0 is θ
    `reconstruct`: φ_0 ← ψ;  φ_1 … φ_E ← fine-tuning of all layers of φ_0

FedRecon's paper evaluates ψ, and a new client of FedPer and FedRep gets ψ. After these methods θ has the initial head,
from which the head's training starts. Epoch 0 of `reconstruct` has already used the client's train part.
"""

import tensorflow as tf

from tff_personalization import local_training
from tff_personalization.algorithms import method, partial_model
from tff_personalization.personalization import adaptation, fine_tuning
from tff_personalization.personalization.adaptation import Client, Curve, FineTuning, Strategy, Tuning, Weights


class Settings(FineTuning):
    """The settings of reconstruction."""

    head_epochs = method.HEAD_EPOCHS
    head_learning_rate = method.HEAD_LEARNING_RATE


def _reconstructed(client: Client, tuning: Tuning[Settings]) -> Weights:
    _, on_features, _ = client.on_features
    (seed,) = tf.unstack(tf.random.split(client.seed, 1))
    return partial_model.train_head(
        client.model,
        partial_model.head_optimizer(tuning.settings.head_learning_rate, tuning.optimizer),
        tuning.batch_size,
        client.theta,
        local_training.ClientRound(on_features, seed),
        tuning.settings.head_epochs,
    ).weights


def _curve_of_head(client: Client, tuning: Tuning[Settings]) -> Curve:
    before, after = client.judgement_of_theta, client.judge(client.model, _reconstructed(client, tuning), client.test)
    return adaptation.same_from_epoch_1(before, after, tuning.epochs)


STRATEGY = Strategy(
    "train the last layer for --head_epochs epochs, which is epoch 0, then fine-tune all layers",
    fine_tuning.fine_tuning(start=_reconstructed),
    settings=Settings,
    gives_weights=True,
    differs=(
        "fine-tunes after reconstruction, which is not part of FedRecon; FedRecon's own figure is epoch 0, or "
        "reconstruct_head"
    ),
)
HEAD = Strategy(
    "train the last layer for --head_epochs epochs and nothing more (FedRecon's own figure)",
    _curve_of_head,
    settings=Settings,
    gives_weights=True,
)
