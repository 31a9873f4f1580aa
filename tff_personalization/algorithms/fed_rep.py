"""FedRep, Collins et al. (ICML 2021, arXiv 2102.07078), Algorithm 1.

    φ: representation, shared; h_i: client i's head, which the client keeps and which starts as the initial head
    E_h: head epochs; E, α, β, n_i as in FedAvg(E)
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            h_i ← E_h epochs of the client optimizer (β) on client i's data, starting at h_i; φ does not change
            φ_i ← E epochs of the client optimizer (β) on client i's data, starting at φ; h_i does not change
            g_i ← φ − φ_i
        φ ← server optimizer (α) applied to Σ n_i g_i / Σ n_i          # the paper: the plain mean, with uniform weights

A held-out client has no head: strategies start from the initial head, which no client has trained. `reconstruct_head`
is what the paper does for new clients: E_h epochs that train the head. The paper's server has no momentum:
--server_sgd_momentum=0.
"""

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import method, partial_model, stateful_clients
from tff_personalization.models import functional


class Settings(method.Federated):
    """The settings of FedRep."""

    local_epochs = method.LOCAL_EPOCHS
    head_epochs = method.HEAD_EPOCHS
    client_weighting = method.CLIENT_WEIGHTING


def build_fed_rep(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    head_epochs: int,
    local_epochs: int,
    batch_size: int,
    client_weighting: str = "examples",
    shuffle: bool = True,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
) -> stateful_clients.StatefulProcess:
    """Builds FedRep as a process whose clients keep their heads. Its metrics come from the steps on the representation.

    Args:
        model: the model, whose head is local.
        client_optimizer: takes the local steps, with a fresh state for the head and for the representation.
        server_optimizer: takes one step a round, on the representation.
        head_epochs: E_h, passes over a client's data to train its head.
        local_epochs: E, passes to train the representation.
        batch_size: examples a local step.
        client_weighting: "examples" or "uniform".
        shuffle: whether clients permute their examples in each epoch.
        aggregator: how deltas of the representation are aggregated; by default their weighted mean.
    """
    training = local_training.LocalTraining(model, client_optimizer, batch_size, trained=model.rest, shuffle=shuffle)

    def update(theta, client, state):
        examples = client.examples
        of_head, of_rest = tf.unstack(tf.random.split(client.seed, 2))
        weights = partial_model.train_head(
            model,
            client_optimizer,
            batch_size,
            (*theta[model.rest], *state.client),
            client._replace(examples=local_training.features(model, theta, examples), seed=of_head),
            head_epochs,
            shuffle,
        )
        end = training.train(weights, client._replace(seed=of_rest), local_epochs * training.steps_per_epoch(examples))
        return partial_model.update_of_rest(model, theta, end)._replace(state=end.weights[model.head])

    return partial_model.build_with_kept_heads(model, update, client_weighting, server_optimizer, aggregator)


def _build(setup: method.Setup[Settings]) -> method.Training:
    settings = setup.settings
    partial_model.check_model(setup, "fed_rep")
    process = build_fed_rep(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        head_epochs=settings.head_epochs,
        local_epochs=settings.local_epochs,
        batch_size=settings.batch_size,
        client_weighting=settings.client_weighting,
        aggregator=setup.aggregator,
    )
    return setup.training("fed_rep", process)


METHOD = method.Method(
    description="FedRep: each client keeps its own head; it trains the head first, then the shared rest",
    serves="both",
    differs=(
        "--server_sgd_momentum=0 is the paper's server; the mean is weighted by examples, the paper's with "
        "--client_weighting=uniform"
    ),
    settings=Settings,
    build=_build,
    strategies=("reconstruct_head", "reconstruct"),
)
