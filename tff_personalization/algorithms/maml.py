"""MAML(K), Finn, Abbeel, Levine (2017, arXiv 1703.03400, Algorithm 1), with clients for tasks.

    θ: global model, α: server learning rate, β: client learning rate, K: local steps
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            deal i's examples into a support part and a query part
            φ_i(θ) ← K steps of the client optimizer (β) on the support part, starting at θ
            g_i ← β ∇_θ L(φ_i(θ); query part)      # = β (∂φ_i/∂θ)ᵀ ∇L(φ_i); in ∂φ_i/∂θ are second derivatives
        g ← (1/M) Σ g_i
        θ ← server optimizer (α) applied to g

It is FOMAML(K) with the derivative of the local steps. The gradient goes through them, for any client optimizer. This
takes two to three times FOMAML's time, and memory for the activations of all K steps. The query gradient is that of a
training pass, with the network's dropout.
"""

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training, optimizers, schedules
from tff_personalization.algorithms import client_work, meta_learning, method
from tff_personalization.models import functional


class Settings(method.Federated):
    """The settings of MAML(K)."""

    local_steps = method.LOCAL_STEPS
    query_fraction = method.QUERY_FRACTION


def build_maml(
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
    """Builds MAML(K) as a learning process; arguments as `fomaml.build_fomaml`."""
    training = local_training.LocalTraining(model, client_optimizer, batch_size, shuffle=shuffle)

    def update(theta, client, state):
        del state
        split_seed, steps_seed, query_seed = tf.unstack(tf.random.split(client.seed, 3))
        support, query = meta_learning.support_and_query(client.examples, query_fraction, split_seed)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            phi = training.train(theta, client._replace(examples=support, seed=steps_seed), local_steps)
        found = training.gradient(phi.weights, query, query_seed)
        meta_gradient = tape.gradient(phi.weights, theta, output_gradients=found.gradients)
        rate = scale * schedules.client_factor(client_optimizer, client.round_number)
        return meta_learning.update_from(meta_gradient, rate, phi, found)

    work = client_work.build_client_work(model, update, "uniform")
    return client_work.compose(model, work, server_optimizer, aggregator)


def _build(setup: method.Setup[Settings]) -> method.Training:
    settings = setup.settings
    process = build_maml(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        local_steps=settings.local_steps,
        batch_size=settings.batch_size,
        query_fraction=settings.query_fraction,
        scale=settings.client.learning_rate,
        aggregator=setup.aggregator,
    )
    return setup.training("maml", process)


METHOD = method.Method(
    description="MAML(K): the exact gradient of the loss on new data after K local steps",
    differs="as fomaml",
    settings=Settings,
    build=_build,
)
