"""FedSGD, McMahan et al. (2017): one gradient on all of a client's data in each round, and no local training.

    for each round:
        sample a cohort of M clients
        for each client i of the cohort: g_i ← ∇ L_i(θ; all n_i examples)
        θ ← server optimizer applied to β Σ n_i g_i / Σ n_i

It is the inner loop with one step of plain SGD on one batch of all examples; β is the client learning rate. Memory
grows with the largest client: by about 0.65 MB an example with the CNN, 2.1 MB with char_lstm.
"""

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import aggregators, cohorts, local_training, optimizers
from tff_personalization.algorithms import client_work, method
from tff_personalization.models import functional


class Settings(cohorts.Settings):
    """The settings of FedSGD."""

    client = optimizers.CLIENT
    server = optimizers.SERVER
    client_weighting = method.CLIENT_WEIGHTING
    aggregator = aggregators.AGGREGATOR


def build_fed_sgd(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    client_weighting: str = "examples",
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
) -> tff.learning.templates.LearningProcess:
    """Builds FedSGD as a learning process; arguments as `fed_avg.build_fed_avg`.

    With a client optimizer that is not plain SGD the delta is that optimizer's first step instead of a gradient.
    """
    training = local_training.LocalTraining(model, client_optimizer, batch_size=None, shuffle=False)
    work = client_work.build_client_work(
        model, client_work.local_steps(training, lambda *_: tf.constant(1)), client_weighting
    )
    return client_work.compose(model, work, server_optimizer, aggregator)


def _build(setup: method.Setup[Settings]) -> method.Training:
    settings = setup.settings
    process = build_fed_sgd(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        client_weighting=settings.client_weighting,
        aggregator=setup.aggregator,
    )
    return setup.training("fed_sgd", process)


METHOD = method.Method(
    description="FedSGD: one full-batch gradient a client and round",
    differs="--server_sgd_momentum=0 is the paper's server",
    settings=Settings,
    build=_build,
)
