"""FedAvg(E), Algorithm 1 of arXiv 1909.12488 with the inner loop of McMahan et al. (2017).

    θ: global model, α: server learning rate, β: client learning rate, E: local epochs, n_i: examples of client i
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            θ_i ← E epochs of the client optimizer (β) on client i's data, starting at θ
            g_i ← θ − θ_i
        g ← Σ n_i g_i / Σ n_i          # or the plain mean, with uniform weights
        θ ← server optimizer (α) applied to g

`LocalTraining` in `local_training.py` runs the local epochs.
"""

import tensorflow_federated as tff

from tff_personalization.algorithms import client_work, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights


class Settings(method.Federated):
    """The settings of FedAvg(E)."""

    local_epochs = method.LOCAL_EPOCHS
    client_weighting = method.CLIENT_WEIGHTING


def build_fed_avg(setup: method.Setup[Settings]) -> tff.learning.templates.LearningProcess:
    """Builds FedAvg(E) as a learning process; the client data type is `client_work.client_data_type(model)`."""
    settings, training = setup.settings, setup.local_training()

    def update(theta: Weights, client: ClientRound, state: State) -> ClientUpdate:
        return client_work.update_from(theta, training.train_epochs(theta, client, settings.local_epochs))

    return setup.process(update, settings.client_weighting)


METHOD = method.Method(
    description="FedAvg(E): E local epochs a round",
    settings=Settings,
    build=method.one_stage("fed_avg", build_fed_avg),
)
