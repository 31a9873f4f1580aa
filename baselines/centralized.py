"""Pooled (datacenter) training: all train clients' examples in one place, in random order, without their clients.

    one stream: all train clients' examples, permuted again in each pass
    for each round: take the next R examples of the stream; θ ← client optimizer, in batches of b; keep its state

A "round" is only the unit of evaluation. R defaults to the mean number of examples that FedAvg with the same flags
visits in a round (clients a round × local epochs × mean examples a client). So runs with the same number of rounds
visit the same number of examples.
"""

import numpy as np
import tensorflow_federated as tff

from tff_personalization import cohorts, global_weights, local_training, optimizers, seeds
from tff_personalization.algorithms import client_work, composition, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.settings import Group, Setting


class Settings(Group):
    """The settings of pooled training. FedAvg's cohort and E give the default number of examples in a round."""

    client = optimizers.CLIENT
    batch_size = method.BATCH_SIZE
    clients_per_round = cohorts.Settings.clients_per_round
    local_epochs = method.LOCAL_EPOCHS
    pooled_examples_per_round: Setting[int | None] = Setting(
        None,
        "Examples in a round of --method=centralized. Default: as many as FedAvg visits on average.",
        kind=int,
        least=1,
    )


def build_centralized(setup: method.Setup[Settings]) -> tff.learning.templates.LearningProcess:
    """Builds pooled training as a learning process whose cohort is one client: the next examples of the stream.

    The optimizer's state is kept from round to round, and the server takes over the client's weights unchanged.
    Examples are used in the given order.
    """
    model, optimizer = setup.model, setup.optimizer(optimizers.CLIENT)
    training = local_training.LocalTraining(model, optimizer, setup.settings.batch_size, shuffle=False)

    def update(theta: Weights, client: ClientRound, state: State) -> ClientUpdate:
        end = training.train_epochs(theta, client, 1, optimizer_state=state.server)
        return client_work.update_from(theta, end, report=end.optimizer_state)

    optimizer_state = client_work.ServerState(lambda: training.initial_optimizer_state(model.initial_weights[0]))
    take_over = tff.learning.optimizers.build_sgdm(1.0)
    return composition.build_process(model, update, "uniform", take_over, server_state=optimizer_state)


def pooled_stream(setup: method.RunSetup[Settings], examples_per_round: int) -> cohorts.CohortFn:
    """For round r, examples (r − 1)R to rR of the endless stream of permuted passes over the pooled train data."""
    parts = [setup.train_data.examples(client) for client in setup.train_clients]
    images = np.concatenate([x for x, _ in parts])
    labels = np.concatenate([y for _, y in parts])
    count = len(labels)

    def indices(round_number: int) -> np.ndarray:
        first = (round_number - 1) * examples_per_round
        last = first + examples_per_round
        passes = range(first // count, (last - 1) // count + 1)
        order = np.concatenate([seeds.generator(setup.seed, "pooled", number).permutation(count) for number in passes])
        return order[first - passes[0] * count : last - passes[0] * count]

    def cohort(round_number: int) -> cohorts.Cohort:
        chosen = indices(round_number)
        seed = seeds.stateless(setup.seed, "local_training", round_number, "pooled")
        return cohorts.Cohort(("pooled",), [cohorts.client_value(images[chosen], labels[chosen], seed)])

    return cohort


def visits_of_fed_avg(setup: method.RunSetup[Settings]) -> int:
    """The examples that FedAvg with the same settings visits in a round, on average."""
    mean = np.mean([setup.train_data.num_examples(client) for client in setup.train_clients])
    cohort = min(setup.settings.clients_per_round, len(setup.train_clients))  # as in `cohorts.sampled`
    return round(cohort * setup.settings.local_epochs * mean)


def _build(setup: method.RunSetup[Settings]) -> method.Training:
    settings = setup.settings
    examples_per_round = settings.pooled_examples_per_round
    if examples_per_round is None:
        examples_per_round = visits_of_fed_avg(setup)
    return method.Training(
        (method.Stage("centralized", 1, build_centralized(setup)),),
        pooled_stream(setup, max(1, examples_per_round)),
        global_weights.GlobalWeights.initial(setup.model),
    )


METHOD = method.Method(
    description="pooled training on the examples of all train clients",
    settings=Settings,
    build=_build,
    pooled=True,
)
