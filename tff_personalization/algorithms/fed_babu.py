"""FedBABU, Oh, Kim, Yun (ICLR 2022, arXiv 2106.06042), Algorithm 1: body aggregation, body update.

    b: body, all but the head; h: the head, the initial one in all rounds; E, α, β, n_i as in FedAvg(E)
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            b_i ← E epochs of the client optimizer (β) on client i's data, starting at b; h does not change
            g_i ← b − b_i
        b ← server optimizer (α) applied to Σ n_i g_i / Σ n_i

Clients keep nothing: held-out clients and participants both fine-tune the whole model (`fine_tune`) or its head
(`fine_tune_head`), from the head that nobody has trained. The paper's server has no momentum: --server_sgd_momentum=0.
"""

import tensorflow_federated as tff

from tff_personalization.algorithms import fed_avg, method, partial_model
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights


def build_fed_babu(setup: method.Setup[fed_avg.Settings]) -> tff.learning.templates.LearningProcess:
    """Builds FedBABU as a learning process, with deltas and steps of the body."""
    settings, model = setup.settings, setup.model
    split = partial_model.with_local_head(model, "fed_babu")
    training = setup.local_training(trained=model.rest)

    def update(body: Weights, client: ClientRound, state: State) -> ClientUpdate:
        start = split.with_initial_local(body)
        end = training.train_epochs(start, client, settings.local_epochs)
        return split.update(body, end)

    return partial_model.process(setup, split, update, settings.client_weighting)


METHOD = method.Method(
    description="FedBABU: FedAvg(E) with the head frozen at its initial weights",
    differs="the paper's server has no momentum (--server_sgd_momentum=0)",
    settings=fed_avg.Settings,
    build=method.one_stage("fed_babu", build_fed_babu),
)
