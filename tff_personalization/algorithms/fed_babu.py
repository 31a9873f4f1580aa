"""FedBABU, Oh, Kim, Yun (ICLR 2022, arXiv 2106.06042), Algorithm 1: body aggregation, body update.

    b: body, all but the head; h: the head, the initial one in all rounds; E, α, β, n_i as in FedAvg(E)
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            b_i ← E epochs of the client optimizer (β) on client i's data, starting at b; h does not change
            g_i ← b − b_i
        b ← server optimizer (α) applied to Σ n_i g_i / Σ n_i

Clients keep nothing: held-out clients and participants both fine-tune the whole model (`fine_tune`) or its head
(`fine_tune_head`), from the head that nobody has trained. The paper's server has no momentum: --server_sgd_momentum=0.
"""

import tensorflow_federated as tff

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import client_work, method, partial_model
from tff_personalization.models import functional


class Settings(method.Federated):
    """The settings of FedBABU."""

    local_epochs = method.LOCAL_EPOCHS
    client_weighting = method.CLIENT_WEIGHTING


def build_fed_babu(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    local_epochs: int,
    batch_size: int,
    client_weighting: str = "examples",
    shuffle: bool = True,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
) -> tff.learning.templates.LearningProcess:
    """Builds FedBABU as a learning process; arguments as `fed_avg.build_fed_avg`, deltas and steps of the body."""
    training = local_training.LocalTraining(model, client_optimizer, batch_size, trained=model.rest, shuffle=shuffle)

    def update(theta, client, state):
        del state
        end = training.train(theta, client, local_epochs * training.steps_per_epoch(client.examples))
        return partial_model.update_of_rest(model, theta, end)

    return client_work.compose(
        model,
        client_work.build_client_work(model, update, client_weighting),
        partial_model.StepOfRest(server_optimizer, model),
        partial_model.AggregationOfRest(aggregator, model),
    )


def _build(setup: method.Setup[Settings]) -> method.Training:
    settings = setup.settings
    partial_model.check_model(setup, "fed_babu")
    process = build_fed_babu(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        local_epochs=settings.local_epochs,
        batch_size=settings.batch_size,
        client_weighting=settings.client_weighting,
        aggregator=setup.aggregator,
    )
    return setup.training("fed_babu", process)


METHOD = method.Method(
    description="FedBABU: FedAvg(E) with the head frozen at its initial weights",
    differs="--server_sgd_momentum=0 is the paper's server",
    settings=Settings,
    build=_build,
)
