"""FedProx, Li et al. (2020), "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127, Algorithm 2.

    θ: global model, μ: proximal strength, E: local epochs, n_i: examples of client i
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            θ_i ← E epochs of the client optimizer on h_i(w) = L_i(w) + μ/2 ‖w − θ‖², starting at w = θ
            g_i ← θ − θ_i
        g ← Σ n_i g_i / Σ n_i
        θ ← server optimizer applied to g

Each step's gradient is that of L_i plus μ (w − θ); with μ = 0 this is FedAvg(E). The paper lets every client stop when
its subproblem is solved well enough. Here, as in the paper's experiments, it stops after E epochs. Algorithm 2 draws
client i with probability p_i, its weight in the objective (n_i / Σ n), and replaces θ by the plain mean of the θ_i.
Here, as in FedAvg, all clients are drawn with equal probability and weighted by n_i in the mean. A server learning rate
of 1 without momentum replaces θ by this mean.

TFF 0.87's own `build_weighted_fed_prox` adds μ (θ − w) to the gradient, which has the opposite sign.
"""

import tensorflow_federated as tff

from tff_personalization import local_training
from tff_personalization.algorithms import client_work, fed_avg, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.settings import Setting


class Settings(fed_avg.Settings):
    """The settings of FedProx."""

    proximal_strength = Setting(
        0.1, "μ of fed_prox: how strongly it pulls local training to the global model.", least=0
    )


def build_fed_prox(setup: method.Setup[Settings]) -> tff.learning.templates.LearningProcess:
    """Builds FedProx as a learning process."""
    settings, training = setup.settings, setup.local_training()

    def update(theta: Weights, client: ClientRound, state: State) -> ClientUpdate:
        pull = local_training.proximal(settings.proximal_strength, theta)
        return client_work.update_from(theta, training.train_epochs(theta, client, settings.local_epochs, pull))

    return setup.process(update, settings.client_weighting)


METHOD = method.Method(
    description="FedProx: FedAvg(E) with a proximal term that pulls every local step towards the global model",
    differs=(
        "the paper's server has no momentum (--server_sgd_momentum=0); clients are sampled with equal probability "
        "and weighted by examples (in the paper, sampled by examples and weighted equally)"
    ),
    settings=Settings,
    build=method.one_stage("fed_prox", build_fed_prox),
)
