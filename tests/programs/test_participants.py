"""Which clients are participants, and how they can be evaluated."""

import types

import numpy as np

from tff_personalization import cohorts, global_weights
from tff_personalization.algorithms import method, stateful_clients
from tff_personalization.programs import participants
from tff_personalization.records import client_states

KEPT = (np.zeros(2, np.float32),)
COHORTS = {1: ("a", "b"), 2: ("b", "d"), 3: ("e",)}
DATA = types.SimpleNamespace(split=types.SimpleNamespace(train=("a", "b", "c", "d", "e"), test=("x", "y")))


def training(personal):
    process = stateful_clients.StatefulProcess(None, None, None, None, KEPT, personal)
    return method.Training(
        (method.Stage("ours", 1, process),),
        lambda number: cohorts.Cohort(COHORTS[number], []),
        global_weights.GlobalWeights(KEPT),
    )


def drawn(personal, **settings):
    values = {"participants": None, "rounds": 2, "personalization_epochs": 1, "seed": 3} | settings
    return participants.drawn(training(personal), types.SimpleNamespace(**values), DATA)


def own_model(weights, kept):
    return None, kept


def test_participants_are_clients_of_the_rounds_drawn_by_the_seed():
    assert set(drawn(None, participants=9)) == {"a", "b", "d"}
    assert set(drawn(None, participants=9, rounds=3)) == {"a", "b", "d", "e"}
    two = drawn(None, participants=2)
    assert two == drawn(own_model, participants=2) == drawn(None, participants=9)[:2]
    assert len({drawn(None, participants=1, seed=seed) for seed in range(20)}) == 3


def test_by_default_their_number_is_that_of_test_clients_if_clients_keep_a_model():
    assert len(drawn(own_model)) == 2
    assert drawn(None) == drawn(own_model, personalization_epochs=0) == drawn(own_model, rounds=0) == ()


def test_what_clients_kept_is_not_made_up_where_it_is_not_on_disk(tmp_path, caplog):
    states = client_states.ClientStates(tmp_path)
    states.write(["a", "b"], [(np.ones(2, np.float32),)] * 2, 1)
    kept = participants.kept(training(own_model), 2, states, ["a", "b"])
    np.testing.assert_array_equal(kept.read(["b"])[0][0], 1)
    assert participants.kept(training(None), 2, states, ["a", "b"]) is None
    assert not caplog.text
    assert participants.kept(training(own_model), 2, states, ["a", "d"]) is None
    assert "the models that participants keep are not evaluated" in caplog.text
