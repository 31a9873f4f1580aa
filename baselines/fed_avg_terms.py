"""FedAvg with only one of the two terms of its update, Jiang et al. (2019, arXiv 1909.12488, section 3).

    θ, φ_j, J as in `algorithms/decomposition.py`: a client's update is θ − φ_J = (θ − φ_1) + (φ_1 − φ_J)
    --update_term=fed_sgd: each client sends θ − φ_1, its first gradient
    --update_term=fomaml:  each client sends φ_1 − φ_J, the later gradients, all of them FOMAML's

In both cases clients do all of the local work, so they see the same examples and differ only in what they send. The
sum of both terms is FedAvg(E). One gradient is far shorter than the sum of all others. With --equal_norms, a client
scales its term to the norm of its whole update, so the two terms differ only in direction.
"""

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import client_work, method
from tff_personalization.models import functional
from tff_personalization.settings import Setting

TERMS = ("fed_sgd", "fomaml")


class Settings(method.Federated):
    """The settings of FedAvg with one term."""

    local_epochs = method.LOCAL_EPOCHS
    client_weighting = method.CLIENT_WEIGHTING
    update_term = Setting(
        "fomaml",
        "Term of FedAvg's update that clients send with fed_avg_terms: fed_sgd (the first gradient) or fomaml (the "
        "rest).",
        choices=TERMS,
    )
    equal_norms = Setting(False, "Scale the term to the norm of the client's whole update.")


def build_fed_avg_terms(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    update_term: str,
    local_epochs: int,
    batch_size: int,
    client_weighting: str = "examples",
    equal_norms: bool = False,
    shuffle: bool = True,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
) -> tff.learning.templates.LearningProcess:
    """Builds FedAvg with one term as a learning process; other arguments as `fed_avg.build_fed_avg`.

    Args:
        model: the model θ to train.
        client_optimizer: takes the local steps. It must be SGD without momentum, because only then are the terms
            gradients.
        server_optimizer: takes one step a round, with the mean term as its gradient.
        update_term: "fed_sgd" or "fomaml".
        local_epochs: E.
        batch_size: examples a local step.
        client_weighting: "examples" or "uniform".
        equal_norms: whether a client scales its term to the norm ‖θ − φ_J‖ of its whole update.
        shuffle: whether clients permute their examples in each epoch.
        aggregator: how terms are aggregated; by default their weighted mean.

    Raises:
        ValueError: `update_term` is neither.
    """
    if update_term not in TERMS:
        raise ValueError(f"update_term: one of {TERMS} expected, got {update_term!r}")
    training = local_training.LocalTraining(model, client_optimizer, batch_size, shuffle=shuffle)

    def update(theta, client, state):
        del state
        start = training.initial_state(theta, round_number=client.round_number)
        last = client.steps_done(local_epochs * training.steps_per_epoch(client.examples))
        after_one = training.steps(start, client.examples, client.seed, 0, 1)
        end = training.steps(after_one, client.examples, client.seed, 1, last)
        whole = client_work.update_from(theta, end)
        first, last = (theta, after_one.weights) if update_term == "fed_sgd" else (after_one.weights, end.weights)
        term = tuple(before - after for before, after in zip(first, last, strict=True))
        if equal_norms:
            factor = tf.math.divide_no_nan(tf.linalg.global_norm(whole.model_delta), tf.linalg.global_norm(term))
            term = tuple(factor * part for part in term)
        return whole._replace(model_delta=term)

    work = client_work.build_client_work(model, update, client_weighting)
    return client_work.compose(model, work, server_optimizer, aggregator)


def _build(setup: method.Setup[Settings]) -> method.Training:
    settings = setup.settings
    process = build_fed_avg_terms(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        update_term=settings.update_term,
        local_epochs=settings.local_epochs,
        batch_size=settings.batch_size,
        client_weighting=settings.client_weighting,
        equal_norms=settings.equal_norms,
        aggregator=setup.aggregator,
    )
    return setup.training("fed_avg_terms", process)


METHOD = method.Method(
    description="FedAvg(E) with only one term of its update: FedSGD's, or FOMAML's",
    settings=Settings,
    build=_build,
    plain_sgd=True,
)
