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

from tff_personalization import optimizers, schedules
from tff_personalization.algorithms import fomaml, meta_learning, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights


def build_maml(setup: method.Setup[fomaml.Settings]) -> tff.learning.templates.LearningProcess:
    """Builds MAML(K) as a learning process. Like the local steps, the delta's factor β follows the schedule."""
    settings, training = setup.settings, setup.local_training()
    client_optimizer = setup.optimizer(optimizers.CLIENT)

    def update(theta: Weights, client: ClientRound, state: State) -> ClientUpdate:
        split_seed, steps_seed, query_seed = tf.unstack(tf.random.split(client.seed, 3))
        support, query = meta_learning.support_and_query(client.examples, settings.query_fraction, split_seed)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            phi = training.train(theta, client._replace(examples=support, seed=steps_seed), settings.local_steps)
        found = training.gradient(phi.weights, query, query_seed)
        meta_gradient = tape.gradient(phi.weights, theta, output_gradients=found.gradients)
        rate = settings.client.learning_rate * schedules.client_factor(client_optimizer, client.round_number)
        return meta_learning.update_from(meta_gradient, rate, phi, found)

    return setup.process(update, "uniform")


METHOD = method.Method(
    description="MAML(K): the exact gradient of the loss on new data after K local steps",
    differs="as fomaml",
    settings=fomaml.Settings,
    build=method.one_stage("maml", build_maml),
)
