"""FedSGD, McMahan et al. (2017): one gradient on all of a client's data in each round, and no local training.

    for each round:
        sample a cohort of M clients
        for each client i of the cohort: g_i ← ∇ L_i(θ; all n_i examples)
        θ ← server optimizer applied to β Σ n_i g_i / Σ n_i

It is the inner loop with one step of plain SGD on one batch of all examples; β is the client learning rate. Memory
grows with the largest client: by about 0.65 MB an example with the CNN, 2.1 MB with char_lstm.
"""

import tensorflow_federated as tff

from tff_personalization import aggregators, cohorts, local_training, optimizers
from tff_personalization.algorithms import client_work, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights


class Settings(cohorts.Settings):
    """The settings of FedSGD."""

    client = optimizers.CLIENT
    server = optimizers.SERVER
    client_weighting = method.CLIENT_WEIGHTING
    aggregator = aggregators.AGGREGATOR


def build_fed_sgd(setup: method.Setup[Settings]) -> tff.learning.templates.LearningProcess:
    """Builds FedSGD as a learning process.

    With a client optimizer that is not plain SGD the delta is that optimizer's first step instead of a gradient.
    """
    training = local_training.LocalTraining(
        setup.model, setup.optimizer(optimizers.CLIENT), batch_size=None, shuffle=False
    )

    def update(theta: Weights, client: ClientRound, state: State) -> ClientUpdate:
        return client_work.update_from(theta, training.train(theta, client, 1))

    return setup.process(update, setup.settings.client_weighting)


METHOD = method.Method(
    description="FedSGD: each client sends one full-batch gradient a round",
    differs="the paper's server has no momentum (--server_sgd_momentum=0)",
    settings=Settings,
    build=method.one_stage("fed_sgd", build_fed_sgd),
)
