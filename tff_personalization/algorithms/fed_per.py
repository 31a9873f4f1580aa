"""FedPer, Arivazhagan et al. (2019, arXiv 1912.00818), Algorithms 1 and 2, with the head as personalization layers.

    W_B: base layers, shared; W_Pj: client j's head, which the client keeps and which starts as the initial head
    E, α, β, n_j as in FedAvg(E)
    for each round:
        sample a cohort of M clients          # the paper: all clients
        for each client j of the cohort:
            (W_Bj, W_Pj) ← E epochs of the client optimizer (β) on client j's data, starting at (W_B, W_Pj)
            g_j ← W_B − W_Bj
        W_B ← server optimizer (α) applied to Σ n_j g_j / Σ n_j

A held-out client has no head: strategies start from the initial head, which no client has trained. `reconstruct` trains
one for --head_epochs epochs first; `fine_tune` is what a new client would do in its first round. The paper's server has
no momentum: --server_sgd_momentum=0.
"""

import tensorflow_federated as tff

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import method, partial_model, stateful_clients
from tff_personalization.models import functional


class Settings(method.Federated):
    """The settings of FedPer."""

    local_epochs = method.LOCAL_EPOCHS
    client_weighting = method.CLIENT_WEIGHTING


def build_fed_per(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    local_epochs: int,
    batch_size: int,
    client_weighting: str = "examples",
    shuffle: bool = True,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
) -> stateful_clients.StatefulProcess:
    """Builds FedPer as a process whose clients keep their heads.

    Args:
        model: the model, whose head is local.
        client_optimizer: takes the local steps.
        server_optimizer: takes one step a round, on the base layers.
        local_epochs: E, passes over a client's data in a round.
        batch_size: examples a local step.
        client_weighting: "examples" or "uniform".
        shuffle: whether clients permute their examples in each epoch.
        aggregator: how deltas of the base layers are aggregated; by default their weighted mean.
    """
    training = local_training.LocalTraining(model, client_optimizer, batch_size, shuffle=shuffle)

    def update(theta, client, state):
        start = (*theta[model.rest], *state.client)
        end = training.train(start, client, local_epochs * training.steps_per_epoch(client.examples))
        return partial_model.update_of_rest(model, theta, end)._replace(state=end.weights[model.head])

    return partial_model.build_with_kept_heads(model, update, client_weighting, server_optimizer, aggregator)


def _build(setup: method.Setup[Settings]) -> method.Training:
    settings = setup.settings
    partial_model.check_model(setup, "fed_per")
    process = build_fed_per(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        local_epochs=settings.local_epochs,
        batch_size=settings.batch_size,
        client_weighting=settings.client_weighting,
        aggregator=setup.aggregator,
    )
    return setup.training("fed_per", process)


METHOD = method.Method(
    description="FedPer: each client keeps its own head and trains it together with the shared rest",
    serves="both",
    differs="--server_sgd_momentum=0 is the paper's server; cohorts, where the paper uses all clients in each round",
    settings=Settings,
    build=_build,
    strategies=("reconstruct", "fine_tune"),
)
