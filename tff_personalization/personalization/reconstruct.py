"""Reconstruction of the head as in FedRecon, Singhal et al. (NeurIPS 2021, arXiv 2102.03448), then fine-tuning.

φ_0 ← θ; for `head_epochs` epochs: train the head of φ_0 on client i's train part, the rest as it is
φ_1 … φ_E ← fine-tuning of all layers of φ_0

After FedRecon, FedPer and FedRep θ has the initial head, from which the head is made. Epoch 0 is a model that has seen
the client's train part already.
"""

import tensorflow as tf

from tff_personalization import local_training
from tff_personalization.algorithms import method, partial_model
from tff_personalization.personalization import fine_tuning
from tff_personalization.personalization.adaptation import Client, FineTuning, Strategy, Tuning, Weights


class Settings(FineTuning):
    """What reconstruction reads."""

    head_epochs = method.HEAD_EPOCHS


def _reconstructed(client: Client, tuning: Tuning[Settings]) -> Weights:
    _, on_features, _ = client.on_features
    (seed,) = tf.unstack(tf.random.split(client.seed, 1))
    return partial_model.train_head(
        client.model,
        tuning.optimizer,
        tuning.batch_size,
        client.theta,
        local_training.ClientRound(on_features, seed),
        tuning.settings.head_epochs,
    )


STRATEGY = Strategy(
    "train the last layer for --head_epochs epochs, which is epoch 0, then fine-tune all layers",
    fine_tuning.fine_tuning(start=_reconstructed),
    settings=Settings,
    gives_weights=True,
)
