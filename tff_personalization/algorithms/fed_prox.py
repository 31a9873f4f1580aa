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

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import client_work, method
from tff_personalization.models import functional
from tff_personalization.settings import Setting


class Settings(method.Federated):
    """The settings of FedProx."""

    local_epochs = method.LOCAL_EPOCHS
    client_weighting = method.CLIENT_WEIGHTING
    proximal_strength = Setting(
        0.1, "μ of fed_prox: how strongly it pulls local training to the global model.", least=0
    )


def build_fed_prox(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    local_epochs: int,
    batch_size: int,
    proximal_strength: float,
    client_weighting: str = "examples",
    shuffle: bool = True,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
) -> tff.learning.templates.LearningProcess:
    """Builds FedProx as a learning process; arguments as `fed_avg.build_fed_avg`, with `proximal_strength` = μ ≥ 0."""
    training = local_training.LocalTraining(model, client_optimizer, batch_size, shuffle=shuffle)

    def update(theta, client, state):
        del state
        num_steps = local_epochs * training.steps_per_epoch(client.examples)
        pull = local_training.proximal(proximal_strength, theta)
        return client_work.update_from(theta, training.train(theta, client, num_steps, pull))

    work = client_work.build_client_work(model, update, client_weighting)
    return client_work.compose(model, work, server_optimizer, aggregator)


def _build(setup: method.Setup[Settings]) -> method.Training:
    settings = setup.settings
    process = build_fed_prox(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        local_epochs=settings.local_epochs,
        batch_size=settings.batch_size,
        proximal_strength=settings.proximal_strength,
        client_weighting=settings.client_weighting,
        aggregator=setup.aggregator,
    )
    return setup.training("fed_prox", process)


METHOD = method.Method(
    description="FedProx: FedAvg(E) with a proximal term that pulls every local step towards the global model",
    differs=(
        "--server_sgd_momentum=0 is the paper's server; clients are drawn alike and weighted by examples, in the "
        "paper the other way round"
    ),
    settings=Settings,
    build=_build,
)
