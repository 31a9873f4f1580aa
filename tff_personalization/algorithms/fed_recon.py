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
from tff_personalization.algorithms import fed_avg, method, partial_model
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights


def halves(
    examples: local_training.Examples, seed: tf.Tensor | None
) -> tuple[local_training.Examples, local_training.Examples]:
    """Deals examples by turns to support and query, in random order if there is a seed. A single example is support."""
    order = tf.range(tf.shape(examples.y)[0])
    if seed is not None:
        order = tf.random.experimental.stateless_shuffle(order, seed)
    return local_training.take(examples, order[0::2]), local_training.take(examples, order[1::2])


class Settings(fed_avg.Settings):
    """The settings of FedRecon."""

    head_epochs = method.HEAD_EPOCHS
    head_learning_rate = method.HEAD_LEARNING_RATE


def build_fed_recon(setup: method.Setup[Settings]) -> tff.learning.templates.LearningProcess:
    """Builds FedRecon as a learning process. Its metrics come from the steps on query halves.

    The client optimizer has a fresh state for the head and for the rest. Without shuffling, halves are dealt by turns.
    A client's weight is that of its query half.
    """
    settings, model, shuffle = setup.settings, setup.model, setup.shuffle
    split = partial_model.with_local_head(model, "fed_recon")
    training = setup.local_training(trained=model.rest)
    of_head = partial_model.head_optimizer(settings.head_learning_rate, setup.optimizer(optimizers.CLIENT))

    def update(shared: Weights, client: ClientRound, state: State) -> ClientUpdate:
        start = split.with_initial_local(shared)
        for_halves, for_head, for_rest = tf.unstack(tf.random.split(client.seed, 3))
        support, query = halves(client.examples, for_halves if shuffle else None)
        on_features = client._replace(examples=local_training.features(model, start, support), seed=for_head)
        with_head = partial_model.train_head(
            model, of_head, settings.batch_size, start, on_features, settings.head_epochs, shuffle
        )
        on_query = client._replace(examples=query, seed=for_rest)
        end = training.train_epochs(with_head.weights, on_query, settings.local_epochs)
        found = split.update(shared, end)
        return found._replace(weighed=tf.shape(query.y)[0], extra_examples=with_head.examples)

    return partial_model.process(setup, split, update, settings.client_weighting)


METHOD = method.Method(
    description="FedRecon: clients train a new local head in each round and share the rest",
    differs=(
        "the paper's server has no momentum (--server_sgd_momentum=0); the local part is the head; support and "
        "query parts are drawn by example, not by batch; every new head starts at the same weights (in the authors' "
        "code, at random ones)"
    ),
    settings=Settings,
    build=method.one_stage("fed_recon", build_fed_recon),
    strategies=("reconstruct_head", "reconstruct"),
)
