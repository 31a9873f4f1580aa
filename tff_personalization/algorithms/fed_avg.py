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

from typing import Any

import tensorflow_federated as tff

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import client_work, method
from tff_personalization.models import functional


class Settings(method.Federated):
    """The settings of FedAvg(E)."""

    local_epochs = method.LOCAL_EPOCHS
    client_weighting = method.CLIENT_WEIGHTING


def build_fed_avg(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    local_epochs: int,
    batch_size: int,
    client_weighting: str = "examples",
    shuffle: bool = True,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
) -> tff.learning.templates.LearningProcess:
    """Builds FedAvg(E) as a learning process; the client data type is `client_work.client_data_type(model)`.

    Args:
        model: the model θ to train.
        client_optimizer: takes the local steps.
        server_optimizer: takes one step a round, with the mean model delta as its gradient.
        local_epochs: E, passes over a client's data in a round.
        batch_size: examples a local step.
        client_weighting: "examples" or "uniform".
        shuffle: whether clients permute their examples in each epoch.
        aggregator: how model deltas are aggregated; by default their weighted mean.
    """
    training = local_training.LocalTraining(model, client_optimizer, batch_size, shuffle=shuffle)
    update = client_work.local_steps(training, lambda inner, examples: local_epochs * inner.steps_per_epoch(examples))
    work = client_work.build_client_work(model, update, client_weighting)
    return client_work.compose(model, work, server_optimizer, aggregator)


def process_of(setup: method.Setup[Any]) -> tff.learning.templates.LearningProcess:
    """FedAvg(E) with these settings, which include those of `Settings`."""
    settings: Settings = setup.settings
    return build_fed_avg(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        local_epochs=settings.local_epochs,
        batch_size=settings.batch_size,
        client_weighting=settings.client_weighting,
        aggregator=setup.aggregator,
    )


def _build(setup: method.Setup[Settings]) -> method.Training:
    return setup.training("fed_avg", process_of(setup))


METHOD = method.Method(
    description="FedAvg(E): E local epochs a round",
    settings=Settings,
    build=_build,
)
