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

from tff_personalization import optimizers, schedules
from tff_personalization.algorithms import meta_learning, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights


class Settings(method.Federated):
    """The settings of FOMAML(K)."""

    local_steps = method.LOCAL_STEPS
    query_fraction = method.QUERY_FRACTION


def build_fomaml(setup: method.Setup[Settings]) -> tff.learning.templates.LearningProcess:
    """Builds FOMAML(K) as a learning process. Like the local steps, the delta's factor β follows the schedule."""
    settings, training = setup.settings, setup.local_training()
    client_optimizer = setup.optimizer(optimizers.CLIENT)

    def update(theta: Weights, client: ClientRound, state: State) -> ClientUpdate:
        split_seed, steps_seed, query_seed = tf.unstack(tf.random.split(client.seed, 3))
        support, query = meta_learning.support_and_query(client.examples, settings.query_fraction, split_seed)
        phi = training.train(theta, client._replace(examples=support, seed=steps_seed), settings.local_steps)
        found = training.gradient(phi.weights, query, query_seed)
        rate = settings.client.learning_rate * schedules.client_factor(client_optimizer, client.round_number)
        return meta_learning.update_from(found.gradients, rate, phi, found)

    return setup.process(update, "uniform")


METHOD = method.Method(
    description="FOMAML(K): the gradient on new data after K local steps, first order",
    differs=(
        "the gradient is multiplied by the client learning rate, so that a delta has the size of a local step; the "
        "query gradient is computed with dropout"
    ),
    settings=Settings,
    build=method.one_stage("fomaml", build_fomaml),
)
