"""Fine-tuning: local training on the client's train part, of all or some weights, from θ or another start.

    φ_0 ← θ                                         # local-only: the untrained model
    for e = 1 … E:
        φ_e ← φ_{e−1}
        for each batch b of a fresh permutation of client i's train part:
            φ_e ← φ_e − η ∇ f_i(φ_e; b)             # or another optimizer; only the trained weights

The strategies of this file differ in the trained weights, the start and the optimizer.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training
from tff_personalization.models import functional
from tff_personalization.personalization import adaptation
from tff_personalization.personalization.adaptation import Client, Curve, CurveFn, Strategy, Tuning, Weights
from tff_personalization.settings import Group, Setting


def fine_tuning(
    trained: Callable[[functional.SeededModel], slice] = lambda model: slice(None),
    start: Callable[[Client, Tuning], Weights] | None = None,
    optimizer: Callable[[Tuning], tff.learning.optimizers.Optimizer] = lambda tuning: tuning.optimizer,
    adjust: Callable[[Client, Tuning], local_training.AdjustFn] | None = None,
) -> CurveFn:
    """The curve of local training on the client's train part.

    Args:
        trained: which of the model's weights are trained.
        start: where training starts; None for the global model θ.
        optimizer: takes the steps; by default the personalization optimizer.
        adjust: changes each step's gradient, if the objective is more than the loss.
    """

    def curve(client: Client, tuning: Tuning) -> Curve:
        model: functional.Classifier = client.model
        train, test = client.train, client.test
        which = trained(client.model)
        # If the stem of the global model is not trained, features are the same in all epochs.
        if start is None and min(range(len(client.theta))[which]) >= client.model.stem_size:
            model, train, test = client.on_features
        training = local_training.LocalTraining(model, optimizer(tuning), tuning.batch_size, trained=which)
        weights = client.theta if start is None else start(client, tuning)
        return adaptation.curve_by_epoch(
            client,
            tuning,
            training,
            weights,
            lambda weights: client.judge(model, weights, test),
            train=train,
            before=None if start is None else client.judge(model, weights, test),
            adjust=None if adjust is None else adjust(client, tuning),
        )

    return curve


def _fine_tuning_of_biases(client: Client, tuning: Tuning) -> Curve:
    """The curve of fine-tuning only the weights of rank 1: biases, and scales and offsets of normalization layers."""
    places = [i for i, w in enumerate(client.theta) if w.shape.rank == 1]

    def with_biases(biases: Weights) -> Weights:
        new = dict(zip(places, biases, strict=True))
        return tuple(new.get(i, w) for i, w in enumerate(client.theta))

    model = adaptation.Reparameterized(client.model, with_biases)
    return adaptation.curve_by_epoch(
        client,
        tuning,
        local_training.LocalTraining(model, tuning.optimizer, tuning.batch_size),
        tuple(client.theta[i] for i in places),
        lambda biases: client.judge(model, biases, client.test),
    )


def _untrained_model(client: Client, tuning: Tuning) -> Weights:
    del tuning
    return tuple(tf.constant(w) for w in client.model.initial_weights[0])


class Adam(Group):
    """The settings of fine-tuning with Adam, which has its own learning rate."""

    personalization_batch_size = adaptation.BATCH_SIZE
    fine_tune_adam_learning_rate = Setting(
        0.002, "Learning rate of --strategies=fine_tune_adam.", theme="personalization", positive=True
    )


def _adam(tuning: Tuning[Adam]) -> tff.learning.optimizers.Optimizer:
    return tff.learning.optimizers.build_adam(tuning.settings.fine_tune_adam_learning_rate)


ALL_LAYERS = Strategy("fine-tune all layers", fine_tuning(), gives_weights=True)
ALL_LAYERS_WITH_ADAM = Strategy(
    "fine-tune all layers with Adam, at its own learning rate",
    fine_tuning(optimizer=_adam),
    settings=Adam,
    gives_weights=True,
)
HEAD = Strategy("fine-tune the last layer", fine_tuning(trained=lambda model: model.head), gives_weights=True)
# Ben Zaken et al., "BitFit" (2021), arXiv 2106.10199, for transformers.
BIASES = Strategy(
    "fine-tune the biases",
    _fine_tuning_of_biases,
    gives_weights=True,
    lacks=lambda model: "" if any(np.ndim(w) == 1 for w in model.initial_weights[0]) else "biases",
    differs="scales of normalization layers are trained too; BitFit fixes them",
)
LOCAL_ONLY = Strategy("train an untrained model", fine_tuning(start=_untrained_model), gives_weights=True)
