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

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import fed_avg, method, partial_model, stateful_clients
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights


class Settings(fed_avg.Settings):
    """The settings of FedRep."""

    head_epochs = method.HEAD_EPOCHS


def build_fed_rep(setup: method.Setup[Settings]) -> stateful_clients.StatefulProcess:
    """Builds FedRep as a process whose clients keep their heads. Its metrics come from the steps on the representation.

    The client optimizer has a fresh state for the head and for the representation.
    """
    settings, model = setup.settings, setup.model
    split = partial_model.with_local_head(model, "fed_rep")
    training, of_client = setup.local_training(trained=model.rest), setup.optimizer(optimizers.CLIENT)

    def update(shared: Weights, client: ClientRound, state: State) -> ClientUpdate:
        examples, start = client.examples, split.join(shared, state.client)
        of_head, of_rest = tf.unstack(tf.random.split(client.seed, 2))
        with_head = partial_model.train_head(
            model,
            of_client,
            settings.batch_size,
            start,
            client._replace(examples=local_training.features(model, start, examples), seed=of_head),
            settings.head_epochs,
            setup.shuffle,
        )
        end = training.train_epochs(with_head.weights, client._replace(seed=of_rest), settings.local_epochs)
        found = split.update(shared, end)
        return found._replace(state=split.local(end.weights), extra_examples=with_head.examples)

    return partial_model.process_with_kept_parts(setup, split, update, settings.client_weighting)


METHOD = method.Method(
    description="FedRep: each client keeps its own head; it trains the head first, then the shared rest",
    serves="both",
    differs=(
        "the paper's server has no momentum (--server_sgd_momentum=0); the mean is weighted by examples (in the "
        "paper, it is uniform: --client_weighting=uniform); a participant's head is that of its last round (in the "
        "authors' code, all clients train their heads again at the end)"
    ),
    settings=Settings,
    build=method.one_stage("fed_rep", build_fed_rep),
    strategies=("reconstruct_head", "reconstruct"),
)
