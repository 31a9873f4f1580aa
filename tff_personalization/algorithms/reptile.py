"""Reptile(K), Nichol et al. (2018), as Algorithm 1 of arXiv 1909.12488.

    θ: global model, α: server learning rate, β: client learning rate, K: local steps
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            θ_i ← exactly K steps of the client optimizer (β) on client i's data, starting at θ
            g_i ← θ − θ_i
        g ← (1/M) Σ g_i
        θ ← server optimizer (α) applied to g

With K = E × (batches of every client) and uniform weights this is FedAvg(E).
"""

import tensorflow_federated as tff

from tff_personalization import optimizers
from tff_personalization.algorithms import client_work, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights


class Settings(method.Federated):
    """The settings of Reptile(K)."""

    local_steps = method.LOCAL_STEPS


def build_reptile(
    setup: method.Setup[Settings], server: optimizers.Role = optimizers.SERVER
) -> tff.learning.templates.LearningProcess:
    """Builds Reptile(K) as a learning process.

    A client that runs out of batches starts another epoch, permuted again, until it has taken K steps.

    Args:
        setup: what it is built from.
        server: the role of the server optimizer.
    """
    settings, training = setup.settings, setup.local_training()

    def update(theta: Weights, client: ClientRound, state: State) -> ClientUpdate:
        return client_work.update_from(theta, training.train(theta, client, settings.local_steps))

    return setup.process(update, "uniform", server=server)


METHOD = method.Method(
    description="Reptile(K): K local steps a round, uniform mean",
    differs="the server of Nichol et al. has no momentum (--server_sgd_momentum=0)",
    settings=Settings,
    build=method.one_stage("reptile", build_reptile),
)
