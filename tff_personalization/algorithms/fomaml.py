"""FOMAML(K), first-order MAML, Finn, Abbeel, Levine (2017, arXiv 1703.03400, section 5.2), as section 2 of 1909.12488.

    θ: global model, α: server learning rate, β: client learning rate, K: local steps
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            deal i's examples into a support part and a query part
            φ_i ← K steps of the client optimizer (β) on the support part, starting at θ
            g_i ← β ∇L(φ_i; query part)      # the second derivative of MAML's is left out
        g ← (1/M) Σ g_i
        θ ← server optimizer (α) applied to g

The query gradient is that of a training pass, with the network's dropout. The factor β gives the delta the size of a
local step, as in FedSGD, so the same server optimizer suits both. With the same data in every step, the delta of J
steps of FedAvg is that of FedSGD + FOMAML(1) + … + FOMAML(J−1).
"""

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training, optimizers, schedules
from tff_personalization.algorithms import client_work, meta_learning, method
from tff_personalization.models import functional


class Settings(method.Federated):
    """The settings of FOMAML(K)."""

    local_steps = method.LOCAL_STEPS
    query_fraction = method.QUERY_FRACTION


def build_fomaml(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    local_steps: int,
    batch_size: int,
    query_fraction: float,
    scale: float,
    shuffle: bool = True,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
) -> tff.learning.templates.LearningProcess:
    """Builds FOMAML(K) as a learning process; other arguments as `reptile.build_reptile`.

    Args:
        model: the model θ to train.
        client_optimizer: takes the local steps.
        server_optimizer: takes one step a round, with the mean delta as its gradient.
        local_steps: K.
        batch_size: examples a local step.
        query_fraction: the share of a client's examples that is the query part, drawn again in each round; see
            `meta_learning.support_and_query`.
        scale: β, the factor of the query part's gradient. Like the learning rate, it follows the schedule.
        shuffle: whether clients permute the support part in each epoch.
        aggregator: how deltas are aggregated; by default their mean.
    """
    training = local_training.LocalTraining(model, client_optimizer, batch_size, shuffle=shuffle)

    def update(theta, client, state):
        del state
        split_seed, steps_seed, query_seed = tf.unstack(tf.random.split(client.seed, 3))
        support, query = meta_learning.support_and_query(client.examples, query_fraction, split_seed)
        phi = training.train(theta, client._replace(examples=support, seed=steps_seed), local_steps)
        found = training.gradient(phi.weights, query, query_seed)
        rate = scale * schedules.client_factor(client_optimizer, client.round_number)
        return meta_learning.update_from(found.gradients, rate, phi, found)

    work = client_work.build_client_work(model, update, "uniform")
    return client_work.compose(model, work, server_optimizer, aggregator)


def _build(setup: method.Setup[Settings]) -> method.Training:
    settings = setup.settings
    process = build_fomaml(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        local_steps=settings.local_steps,
        batch_size=settings.batch_size,
        query_fraction=settings.query_fraction,
        scale=settings.client.learning_rate,
        aggregator=setup.aggregator,
    )
    return setup.training("fomaml", process)


METHOD = method.Method(
    description="FOMAML(K): the gradient on new data after K local steps, first order",
    differs="deltas have the size of a local step (times the client rate); query gradient with dropout",
    settings=Settings,
    build=_build,
)
