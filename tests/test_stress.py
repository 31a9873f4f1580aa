"""The stress tests themselves: they have the stated coverage, and they can fail."""

import collections
import os
import random
import re
import subprocess
import sys

import pandas as pd
import pytest

from tests import forked
from tests.stress import (
    bad_commands,
    cases,
    environments,
    faults,
    fuzz,
    malformed_data,
    malformed_forms,
    moments,
    random_faults,
    soak,
)
from tff_personalization.execution import worker


def test_every_kind_of_fault_has_its_turn_at_every_moment():
    plans = random_faults.plan(100, random.Random(1), faults.FAULTS)
    pairs = collections.Counter((one.fault.name, one.moment) for planned in plans.values() for one in planned)
    for fault in faults.FAULTS:
        for moment in moments.MOMENTS:
            without = fault.to_the_worker and moment in ("starting", "reading data", "report and plots")
            assert (pairs[fault.name, moment] == 0) == without
    assert sum(pairs.values()) == 100
    assert {one.fault.name for planned in plans.values() for one in planned} == {fault.name for fault in faults.FAULTS}
    assert all(planned for planned in plans.values())


def test_marks_tell_the_moment_to_another_process(tmp_path):
    marks = moments.Marks(tmp_path / "marks")
    assert marks.read() == (0, "starting")
    found = []
    evaluate = moments._marked(marks, lambda: found.append(moments.Marks(tmp_path / "marks").read()), "evaluation")
    moments._marked(marks, evaluate, lambda: "training")()
    assert found == [(2, "evaluation")]
    assert marks.read() == (4, "starting")


SOUND = {
    "same_numbers": True,
    "ended": 143,
    "one_line": None,
    "traceback": False,
    "child_outlived": False,
    "rounds_again": 2,
}


@pytest.mark.parametrize(
    "changes",
    [{"same_numbers": False}, {"traceback": True}, {"child_outlived": True}, {"one_line": False}, {"ended": "hung"}],
    ids=str,
)
def test_a_fault_that_the_run_does_not_survive_fails_the_stress_test(changes):
    assert not random_faults.broken(pd.DataFrame([SOUND])).any()
    assert random_faults.broken(pd.DataFrame([SOUND, SOUND | changes])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("status", "output", "said", "found"),
    [
        (1, "", "Error: x\n", "refused"),
        (1, "", "a, 3 writers. Run directory: x\nReading x:  50%|#####|\rError: x\n", "refused"),
        (0, "a table", "Run directory: x\n", "accepted"),
        (1, "", "Error: x\nError: y\n", "not one line"),
        (1, "", "something\nError: x\n", "not one line"),
        (1, "", "", "not one line"),
        (1, "x", "Error: x\n", "on standard output"),
        (1, "", "Traceback (most recent call last):\nValueError: x\n", "a traceback"),
        (-6, "", "", "exit status -6"),
    ],
)
def test_what_counts_as_a_clear_error(status, output, said, found):
    assert found in bad_commands.judged(status, output, said)


def test_something_of_every_kind_of_bad_input_is_tried():
    kinds = collections.Counter(case.kind for case in [*bad_commands.by_hand(), *bad_commands.by_chance(5, seed=1)])
    assert set(kinds) == {
        *("by-writer archive", "SQLite file", "SQLite file of text", "flag file", "flags", "sweep file"),
        *malformed_forms.KINDS,
    }


@pytest.mark.parametrize(
    "make",
    [malformed_data.ARCHIVES["objects that execute"], bad_commands.FLAG_FILES["bytes"]],
    ids=["archive of objects that execute", "flag file of bytes"],
)
def test_the_program_itself_refuses_malformed_input_in_one_line(make):
    outcome = bad_commands.run(cases.Case("kind", "name", make), forked.Popen)
    assert outcome.found == "refused", outcome


@pytest.mark.parametrize(
    ("status", "said", "left", "words", "found"),
    [
        (0, "some line\n", True, "", "right"),
        (0, "", False, "", "nothing left"),
        (1, "Error: x\n", False, "", "exit status 1"),
        (1, "Error: loopback is down\n", False, "loopback is down", "one clear line"),
        (1, "Error: x\n", False, "loopback is down", "no line, 1"),
        (0, "Traceback (most recent call last):\n", True, "", "a traceback"),
        ("hung", "", False, "", "exit status hung"),
    ],
)
def test_how_a_command_has_ended_in_an_environment(status, said, left, words, found):
    assert environments.judged(status, said, left, words) == found


@pytest.mark.parametrize(
    ("ignores", "found"),
    [("", ""), ("signal.signal(signal.SIGHUP, signal.SIG_IGN);", "exit status 0, after its terminal went away: ")],
)
def test_a_command_that_does_not_end_with_its_terminal_is_found(ignores, found, monkeypatch, tmp_path):
    waits = ["-c", f"import signal, time; {ignores} time.sleep(1)"]
    monkeypatch.setitem(environments.COMMANDS, "wait", lambda place, folder: (waits, folder))
    command = [sys.executable, *waits]
    assert environments._lose_terminal(None, "wait", command, tmp_path / "whole") == found


def test_what_is_left_is_seen(tmp_path):
    left = soak.Left()
    assert set(left.added().values()) == {0}
    with worker.listening("127.0.0.1", 0), (tmp_path / "file").open("w"):
        added = left.added()
    assert (added["ports"], added["descriptors"]) == (1, 2)


def test_a_process_that_is_about_to_end_is_not_left():
    left = soak.Left()
    with subprocess.Popen(["sleep", "0.5"]):
        assert left.added()["processes"] == 1
        assert left.added_after_a_while()["processes"] == 0


def test_a_process_that_is_left_is_named(capsys):
    left = soak.Left()
    with subprocess.Popen(["sleep", "100"]) as process:
        assert left.added()["processes"] == 1
        process.kill()
    assert re.search(rf"left: {process.pid}, .* child of {os.getpid()}, \d s old: sleep 100", capsys.readouterr().err)


def test_how_often_a_reader_was_called_is_what_libfuzzer_says():
    assert fuzz.executions("#2\tINITED\n#128\tpulse\nstat::number_of_executed_units: 159\n") == 159
    assert fuzz.executions("#2\tINITED\n#128\tpulse\n") == 128
    assert fuzz.executions("no module") == 0


@pytest.mark.parametrize("name", ["npz", "SQLite", "LEAF", "clients.csv", "flag file", "sweep file"])
def test_what_a_search_begins_with_is_read(name, tmp_path):
    (tmp_path / "seeds").mkdir()
    target = fuzz.TARGETS[name]
    read = target.reader(tmp_path)
    for content in target.seeds(tmp_path / "seeds"):
        assert read(content) is not None
