"""Meta-SGD(K), Li et al. (2017, arXiv 1707.09835, Algorithm 1), federated as in Chen et al. (2018, arXiv 1802.07876).

    θ: global model, a: a local learning rate for each weight of θ, which starts as a_0; α: server learning rate
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            deal i's examples into a support part and a query part
            φ_i(θ, a) ← K steps φ ← φ − a ∘ ∇L(φ; next support batch), starting at θ        # ∘: weight by weight
            g_i ← a_0 ∇_{θ,a} L(φ_i(θ, a); query part)
        g ← (1/M) Σ g_i
        (θ, a) ← server optimizer (α) applied to g

Li et al. use K = 1. The query gradient is that of a training pass, with the network's dropout. The derivative goes
through all K steps, as in MAML; with a fixed at a_0 this is MAML. A rate's gradient is a product of two gradients of
its weight, and so orders of magnitude smaller than either. Adam on the server scales each gradient by itself and learns
the rates; SGD hardly moves them. The strategy `meta_sgd` fine-tunes with the learnt rates.
"""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import aggregators, cohorts, global_weights, optimizers
from tff_personalization.algorithms import meta_learning, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.models import functional

RATES = "rates"  # the name of what it adds to the global weights


def initial_weights(model: functional.SeededModel, inner_learning_rate: float) -> global_weights.GlobalWeights:
    """The global weights before the first round: the model's own, and a rate for each of them, in the same shapes."""
    theta = model.initial_weights[0]
    return global_weights.GlobalWeights(theta, RATES, (tuple(np.full_like(w, inner_learning_rate) for w in theta),))


class Settings(cohorts.WithStragglers):
    """The settings of Meta-SGD(K). Its local steps use only the learnt rates and no optimizer."""

    server = optimizers.SERVER
    batch_size = method.BATCH_SIZE
    aggregator = aggregators.AGGREGATOR
    local_steps = method.LOCAL_STEPS
    query_fraction = method.QUERY_FRACTION
    inner_learning_rate = method.INNER_LEARNING_RATE


def build_meta_sgd(setup: method.Setup[Settings]) -> tff.learning.templates.LearningProcess:
    """Builds Meta-SGD(K) as a learning process whose global weights are those of `initial_weights`.

    The server optimizer steps θ and a together. The factor of the gradient is the initial rate a_0.
    """
    settings = setup.settings
    training = meta_learning.training_at_rates(setup.model, settings.batch_size, shuffle=setup.shuffle)
    start = initial_weights(setup.model, settings.inner_learning_rate)

    def update(weights: Weights, client: ClientRound, state: State) -> ClientUpdate:
        split_seed, steps_seed, query_seed = tf.unstack(tf.random.split(client.seed, 3))
        support, query = meta_learning.support_and_query(client.examples, settings.query_fraction, split_seed)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            named = start.like(weights)
            (rates,) = named.added(RATES)
            on_support = client._replace(examples=support, seed=steps_seed)
            phi = training.train(named.model, on_support, settings.local_steps, meta_learning.at_rates(rates))
        found = training.gradient(phi.weights, query, query_seed)
        meta_gradient = tape.gradient(phi.weights, weights, output_gradients=found.gradients)
        return meta_learning.update_from(meta_gradient, settings.inner_learning_rate, phi, found)

    return setup.process(update, "uniform", initial_weights=start)


def _build(setup: method.RunSetup[Settings]) -> method.Training:
    start = initial_weights(setup.model, setup.settings.inner_learning_rate)
    return setup.training("meta_sgd", build_meta_sgd(setup), start)


METHOD = method.Method(
    description="Meta-SGD(K): MAML that learns a local learning rate for each weight",
    differs=(
        "K steps (in the paper, one); all rates start equal (in the paper, at random); the query gradient is "
        "computed with dropout and multiplied by the first rate"
    ),
    settings=Settings,
    build=_build,
    strategies=("meta_sgd", "fine_tune"),
    provides=RATES,
)
