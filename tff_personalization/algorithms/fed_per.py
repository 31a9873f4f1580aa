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

from tff_personalization.algorithms import fed_avg, method, partial_model, stateful_clients
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights


def build_fed_per(setup: method.Setup[fed_avg.Settings]) -> stateful_clients.StatefulProcess:
    """Builds FedPer as a process whose clients keep their heads."""
    return build_with_kept_parts(setup, partial_model.with_local_head(setup.model, "fed_per"))


def build_with_kept_parts(
    setup: method.Setup[fed_avg.Settings], split: partial_model.Split
) -> stateful_clients.StatefulProcess:
    """FedPer's process with any local part W_P in place of the head."""
    settings, training = setup.settings, setup.local_training()

    def update(shared: Weights, client: ClientRound, state: State) -> ClientUpdate:
        start = split.join(shared, state.client)
        end = training.train_epochs(start, client, settings.local_epochs)
        return split.update(shared, end)._replace(state=split.local(end.weights))

    return partial_model.process_with_kept_parts(setup, split, update, settings.client_weighting)


METHOD = method.Method(
    description="FedPer: each client keeps its own head and trains it together with the shared rest",
    serves="both",
    differs=(
        "the paper's server has no momentum (--server_sgd_momentum=0); a cohort trains in each round (in the "
        "paper, all clients)"
    ),
    settings=fed_avg.Settings,
    build=method.one_stage("fed_per", build_fed_per),
    strategies=("reconstruct", "fine_tune"),
)
