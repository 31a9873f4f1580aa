"""Clients' states on disk: every kept checkpoint leads back to the states of its round."""

import collections
import random

import numpy as np
import pytest

from tff_personalization import errors
from tff_personalization.records import client_states

INITIAL = (np.zeros(2, np.float32), collections.OrderedDict(count=np.int32(0)))


def state(number):
    return np.full(2, number, np.float32), collections.OrderedDict(count=np.int32(number))


def number_of(kept):
    array, others = kept
    assert array.dtype == np.float32
    assert array.shape == (2,)
    assert array[0] == array[1] == others["count"]
    return int(others["count"])


def numbers(states, members, first_round=1):
    return [number_of(kept) for kept in states.read(members, INITIAL, first_round)]


@pytest.fixture
def states(tmp_path):
    return client_states.ClientStates(tmp_path / "states")


def test_a_client_gets_back_what_it_kept_last_whatever_its_name(states, tmp_path):
    members = ("a/b", "..", "ü" * 300)
    states.write(members, [state(1), state(2), state(3)], 1)
    states.write(members[:1], [state(4)], 5)
    for now in (states, client_states.ClientStates(tmp_path / "states")):
        assert numbers(now, (*members, "new")) == [4, 2, 3, 0]


def test_a_stage_begins_with_fresh_states(states):
    states.write(["a", "b"], [state(1), state(2)], 3)
    states.write(["b"], [state(3)], 4)
    assert numbers(states, ["a", "b"], first_round=4) == [0, 3]


def test_later_rounds_are_forgotten(states, tmp_path):
    for round_number in (1, 4, 7):
        states.write(["a"], [state(round_number)], round_number)
    states.forget_after(4)
    for now in (states, client_states.ClientStates(tmp_path / "states")):
        assert numbers(now, ["a"]) == [4]


def test_a_state_that_is_lost_is_missed(states, tmp_path):
    states.write(["a", "b"], [state(1), state(2)], 1)
    then = states.digest(1)
    states.write(["b"], [state(3)], 2)
    states.prune([1])
    for each in (None, then):
        client_states.ClientStates(tmp_path / "states").check(1, each)
    next((tmp_path / "states").glob("*.1.npz")).unlink()
    with pytest.raises(errors.UserError, match="states: lacks states that clients had after round 1: restore"):
        client_states.ClientStates(tmp_path / "states").check(1, then)


def test_what_a_kill_left_half_written_is_no_state(states, tmp_path):
    states.write(["a"], [state(1)], 1)
    (file,) = (tmp_path / "states").iterdir()
    file.with_name(f"{file.name.replace('.1.', '.2.')}_temp0").write_bytes(b"half")
    again = client_states.ClientStates(tmp_path / "states")
    assert numbers(again, ["a"]) == [1]
    assert list((tmp_path / "states").iterdir()) == [file]


def test_a_file_without_a_state_is_not_changed(states, tmp_path):
    states.write(["a"], [state(1)], 1)
    stranger = tmp_path / "states" / "notes.npz"
    stranger.write_bytes(b"")
    again = client_states.ClientStates(tmp_path / "states")
    again.forget_after(0)
    assert list((tmp_path / "states").iterdir()) == [stranger]


@pytest.mark.parametrize("content", [b"", b"[]", b"PK\x03\x04", b"\x93NUMPY\x01\x00v\x00{"], ids=range(4))
def test_a_damaged_state_is_refused_by_name(states, tmp_path, content):
    states.write(["a"], [state(1)], 1)
    (file,) = (tmp_path / "states").iterdir()
    damages = [content] if content else [content, file.read_bytes()[:200], file.read_bytes().replace(b"\1", b"\2")]
    for damage in damages:
        file.write_bytes(damage)
        with pytest.raises(errors.UserError, match=f"{file.name}: damaged") as refused:
            numbers(states, ["a"])
        assert "\n" not in str(refused.value)


def test_every_kept_checkpoint_leads_to_its_states_and_files_do_not_pile_up(states, tmp_path):
    """With random cohorts, a run that resumes from any kept checkpoint sees the states of its round."""
    draw, clients = random.Random(3), [f"c{i}" for i in range(12)]
    now = dict.fromkeys(clients, 0)
    at_checkpoint = {}
    for round_number in range(1, 61):
        cohort = draw.sample(clients, 3)
        states.write(cohort, [state(100 * round_number + i) for i in range(3)], round_number)
        now.update({client: 100 * round_number + i for i, client in enumerate(cohort)})
        if round_number % 4 == 0:
            at_checkpoint[round_number] = dict(now)
            at_checkpoint = dict(list(at_checkpoint.items())[-3:])
        states.prune(at_checkpoint)
        assert numbers(states, clients) == list(now.values())
        newest_and_one_for_each_checkpoint = 4
        assert len(list((tmp_path / "states").iterdir())) <= newest_and_one_for_each_checkpoint * len(clients)
    for round_number in sorted(at_checkpoint, reverse=True):
        again = client_states.ClientStates(tmp_path / "states")
        again.forget_after(round_number)
        assert numbers(again, clients) == list(at_checkpoint[round_number].values())
