"""Participants: clients that took part in training, evaluated on their own test parts in addition to held-out clients.

    participants ← the clients of all rounds' cohorts that reported;  N of them, drawn by the run's seed
    for each of them: the main strategy from the global model, and the model that the client keeps, if it keeps one

Runs with the same data, seed, rounds and cohorts have the same participants, with any method.
"""

from collections.abc import Sequence

from absl import logging

from tff_personalization import seeds
from tff_personalization.algorithms import method, stateful_clients
from tff_personalization.experiment import settings
from tff_personalization.programs import client_evaluation
from tff_personalization.records import client_states
from tff_personalization.tasks import federated_data


def drawn(
    training: method.Training, config: settings.RunSettings, data: federated_data.FederatedData
) -> tuple[str, ...]:
    """The participants to evaluate: `--participants` of them, or all if there are no more.

    The default is the number of test clients if clients keep their own models, else none.
    """
    most = config.participants
    if most is None:
        most = len(data.split.test) if _personal(training, config.rounds) and config.personalization_epochs else 0
    if not most or not config.rounds:
        return ()
    took_part = {member for number in range(1, config.rounds + 1) for member in training.cohort(number).members}
    # In pooled training all train clients are participants, because its cohort is the pool.
    candidates = [client for client in data.split.train if client in took_part] or list(data.split.train)
    order = seeds.generator(config.seed, "participants").permutation(len(candidates))
    return tuple(candidates[i] for i in order[:most])


def kept(
    training: method.Training, round_number: int, states: client_states.ClientStates, clients: Sequence[str]
) -> client_evaluation.Kept | None:
    """Gives participants' own models after a round; None if they keep none, or none is on disk."""
    personal = _personal(training, round_number)
    if personal is None:
        return None
    stage = training.stage_of(round_number)
    if not states.has(clients, stage.first_round):
        logging.warning(
            "The run reuses rounds of an earlier run that has no states of clients, so the models that participants "
            "keep are not evaluated. To evaluate them, compute all rounds with --rounds_from=none."
        )
        return None
    assert isinstance(stage.process, stateful_clients.StatefulProcess)
    initial = stage.process.client_state
    return client_evaluation.Kept(personal, initial, lambda members: states.read(members, initial, stage.first_round))


def _personal(training: method.Training, round_number: int) -> stateful_clients.PersonalFn | None:
    if not training.stages or not round_number:
        return None
    return getattr(training.stage_of(round_number).process, "personal", None)
