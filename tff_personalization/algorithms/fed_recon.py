"""Federated Reconstruction (FedRecon), Singhal et al. (NeurIPS 2021, arXiv 2102.03448), Algorithm 1, with local heads.

    g: global weights, all but the head; l: the head, local; L: the initial head; E_h: head epochs
    γ: head learning rate; E, α, β as in FedAvg(E)
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            D_s, D_q ← the support and the query half of client i's data, dealt again
            l_i ← E_h epochs of SGD (γ) on D_s, starting at L; g does not change    # without γ: the client optimizer
            g_i ← E epochs of the client optimizer (β) on D_q, starting at g; l_i does not change
            Δ_i ← g − g_i,   n_i ← |D_q|
        g ← server optimizer (α) applied to Σ n_i Δ_i / Σ n_i

Clients keep nothing. A head is made whenever it is needed, so new clients get theirs in the same way as old ones: by
the strategy `reconstruct_head`, which the paper evaluates. `reconstruct` fine-tunes all layers after that.

TFF has this algorithm as `tff.learning.algorithms.build_fed_recon`, for Keras models and batched `tf.data`; there every
second batch is support. Broadcast, aggregation and finalizer are TFF's here too. The client work is this project's,
with the models, inner loop and seeds of all methods here; it deals the halves by example.
"""

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import client_work, method, partial_model
from tff_personalization.models import functional


def halves(
    examples: local_training.Examples, seed: tf.Tensor | None
) -> tuple[local_training.Examples, local_training.Examples]:
    """Deals examples by turns to support and query, in random order if there is a seed. A single example is support."""
    order = tf.range(tf.shape(examples.y)[0])
    if seed is not None:
        order = tf.random.experimental.stateless_shuffle(order, seed)
    return local_training.take(examples, order[0::2]), local_training.take(examples, order[1::2])


class Settings(method.Federated):
    """The settings of FedRecon."""

    local_epochs = method.LOCAL_EPOCHS
    head_epochs = method.HEAD_EPOCHS
    head_learning_rate = method.HEAD_LEARNING_RATE
    client_weighting = method.CLIENT_WEIGHTING


def build_fed_recon(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    head_epochs: int,
    local_epochs: int,
    batch_size: int,
    client_weighting: str = "examples",
    shuffle: bool = True,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
    head_learning_rate: float | None = None,
) -> tff.learning.templates.LearningProcess:
    """Builds FedRecon as a learning process. Its metrics come from the steps on query halves.

    Args:
        model: the model, whose head is local.
        client_optimizer: takes the local steps, with a fresh state for the head and for the rest.
        server_optimizer: takes one step a round, on the rest.
        head_epochs: E_h, passes over the support half.
        local_epochs: E, passes over the query half.
        batch_size: examples a local step.
        client_weighting: "examples" (of the query half) or "uniform".
        shuffle: whether halves are dealt at random, and permuted in each epoch.
        aggregator: how deltas of the rest are aggregated; by default their weighted mean.
        head_learning_rate: γ; None for the client optimizer.
    """
    of_head = partial_model.head_optimizer(head_learning_rate, client_optimizer)
    training = local_training.LocalTraining(model, client_optimizer, batch_size, trained=model.rest, shuffle=shuffle)

    def update(theta, client, state):
        del state
        for_halves, for_head, for_rest = tf.unstack(tf.random.split(client.seed, 3))
        support, query = halves(client.examples, for_halves if shuffle else None)
        on_features = client._replace(examples=local_training.features(model, theta, support), seed=for_head)
        weights = partial_model.train_head(model, of_head, batch_size, theta, on_features, head_epochs, shuffle)
        on_query = client._replace(examples=query, seed=for_rest)
        end = training.train(weights, on_query, local_epochs * training.steps_per_epoch(query))
        return partial_model.update_of_rest(model, theta, end)._replace(weighed=tf.shape(query.y)[0])

    return client_work.compose(
        model,
        client_work.build_client_work(model, update, client_weighting),
        partial_model.StepOfRest(server_optimizer, model),
        partial_model.AggregationOfRest(aggregator, model),
    )


def _build(setup: method.Setup[Settings]) -> method.Training:
    settings = setup.settings
    partial_model.check_model(setup, "fed_recon")
    process = build_fed_recon(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        head_epochs=settings.head_epochs,
        local_epochs=settings.local_epochs,
        batch_size=settings.batch_size,
        client_weighting=settings.client_weighting,
        aggregator=setup.aggregator,
        head_learning_rate=settings.head_learning_rate,
    )
    return setup.training("fed_recon", process)


METHOD = method.Method(
    description="FedRecon: clients train a new local head in each round and share the rest",
    differs=(
        "--server_sgd_momentum=0 is the paper's server; the local part is the head; query and support are dealt by"
        " example, not by batch"
    ),
    settings=Settings,
    build=_build,
    strategies=("reconstruct_head", "reconstruct"),
)
