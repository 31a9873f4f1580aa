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

from tff_personalization.algorithms import client_work, fed_avg, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.settings import Setting

TERMS = ("fed_sgd", "fomaml")


class Settings(fed_avg.Settings):
    """The settings of FedAvg with one term."""

    update_term = Setting(
        "fomaml",
        "Term of FedAvg's update that clients send with fed_avg_terms: fed_sgd (the first gradient) or fomaml (the "
        "rest).",
        choices=TERMS,
    )
    equal_norms = Setting(False, "Scale the term to the norm of the client's whole update.")


def build_fed_avg_terms(setup: method.Setup[Settings]) -> tff.learning.templates.LearningProcess:
    """Builds FedAvg with one term as a learning process.

    The client optimizer must be SGD without momentum, because only then are the terms gradients.
    """
    settings, training = setup.settings, setup.local_training()

    def update(theta: Weights, client: ClientRound, state: State) -> ClientUpdate:
        start = training.initial_state(theta, round_number=client.round_number)
        last = client.steps_done(settings.local_epochs * training.steps_per_epoch(client.examples))
        after_one = training.steps(start, client.examples, client.seed, 0, 1)
        end = training.steps(after_one, client.examples, client.seed, 1, last)
        whole = client_work.update_from(theta, end)
        ends = (theta, after_one.weights) if settings.update_term == "fed_sgd" else (after_one.weights, end.weights)
        term = tuple(before - after for before, after in zip(*ends, strict=True))
        if settings.equal_norms:
            factor = tf.math.divide_no_nan(tf.linalg.global_norm(whole.model_delta), tf.linalg.global_norm(term))
            term = tuple(factor * part for part in term)
        return whole._replace(model_delta=term)

    return setup.process(update, settings.client_weighting)


METHOD = method.Method(
    description="FedAvg(E) with only one term of its update: FedSGD's, or FOMAML's",
    settings=Settings,
    build=method.one_stage("fed_avg_terms", build_fed_avg_terms),
    plain_sgd=True,
)
