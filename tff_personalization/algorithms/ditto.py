"""Ditto, Li et al. (ICML 2021, arXiv 2012.04221), Algorithm 1, with FedAvg(E) as the solver of the global model.

    w: global model; v_i: client i's personal model, which the client keeps and which starts as the initial model
    λ: how strongly v_i is pulled to w; E, α, β, n_i as in FedAvg(E)
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            w_i ← E epochs of the client optimizer (β) on client i's data, starting at w
            v_i ← E epochs of the client optimizer (β) on h_i(v) = f_i(v) + λ/2 ‖v − w‖², starting at v_i
            g_i ← w − w_i
        w ← server optimizer (α) applied to Σ n_i g_i / Σ n_i          # the paper: the plain mean, with uniform weights

Both visit the same batches. The paper's server has no momentum: --server_sgd_momentum=0. A held-out client has no v_i;
the strategy `ditto` takes the personal step from w.
"""

from tff_personalization import local_training
from tff_personalization.algorithms import client_work, fed_avg, method, stateful_clients
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.settings import Setting

LAMBDA = Setting(
    1.0,
    "λ of Ditto: how strongly the personal model is pulled back to the global one.",
    theme="personalization",
    least=0,
)


class Settings(fed_avg.Settings):
    """The settings of Ditto."""

    ditto_lambda = LAMBDA


def build_ditto(setup: method.Setup[Settings]) -> stateful_clients.StatefulProcess:
    """Builds Ditto as a process whose clients keep v_i."""
    settings, model, training = setup.settings, setup.model, setup.local_training()

    def update(w: Weights, client: ClientRound, state: State) -> ClientUpdate:
        end = training.train_epochs(w, client, settings.local_epochs)
        pull = local_training.proximal(settings.ditto_lambda, w)
        personal = training.train_epochs(state.client, client, settings.local_epochs, pull)
        found = client_work.update_from(w, end, state=personal.weights)
        return found._replace(examples=end.examples + personal.examples)

    return setup.stateful_process(
        update, settings.client_weighting, model.initial_weights[0], personal=lambda weights, v: (model, v)
    )


METHOD = method.Method(
    description="Ditto: FedAvg(E), and each client also keeps its own model, pulled to the global one",
    serves="both",
    differs=(
        "the paper's server has no momentum (--server_sgd_momentum=0); the mean is weighted by examples (in the "
        "paper, it is uniform: --client_weighting=uniform)"
    ),
    settings=Settings,
    build=method.one_stage("ditto", build_ditto),
    strategies=("ditto", "fine_tune"),
)
