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

from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import client_work, method
from tff_personalization.models import functional


class Settings(method.Federated):
    """The settings of Reptile(K)."""

    local_steps = method.LOCAL_STEPS


def build_reptile(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    local_steps: int,
    batch_size: int,
    shuffle: bool = True,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
) -> tff.learning.templates.LearningProcess:
    """Builds Reptile(K) as a learning process; arguments as `fed_avg.build_fed_avg`, with `local_steps` = K.

    A client that runs out of batches starts another epoch, permuted again, until it has taken K steps.
    """
    training = local_training.LocalTraining(model, client_optimizer, batch_size, shuffle=shuffle)
    update = client_work.local_steps(training, lambda *_: tf.constant(local_steps))
    work = client_work.build_client_work(model, update, "uniform")
    return client_work.compose(model, work, server_optimizer, aggregator)


def process_of(
    setup: method.Setup[Any], server: optimizers.Role = optimizers.SERVER
) -> tff.learning.templates.LearningProcess:
    """Reptile(K) with these settings, which include those of `Settings` and the server optimizer's role."""
    settings: Settings = setup.settings
    return build_reptile(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(server),
        local_steps=settings.local_steps,
        batch_size=settings.batch_size,
        aggregator=setup.aggregator,
    )


def _build(setup: method.Setup[Settings]) -> method.Training:
    return setup.training("reptile", process_of(setup))


METHOD = method.Method(
    description="Reptile(K): K local steps a round, uniform mean",
    differs="Nichol et al. move the server by plain SGD (--server_sgd_momentum=0)",
    settings=Settings,
    build=_build,
)
