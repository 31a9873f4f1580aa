"""The program as a process: killed and stopped at any moment, it resumes and ends with the same numbers."""

import functools
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from tests import forked, processes
from tests.processes import ROOT, ROUNDS, assert_all_end, assert_same_numbers, children, start, wait_for_round


@pytest.fixture(scope="module")
def command(by_writer_archive, tmp_path_factory):
    return functools.partial(processes.command, by_writer_archive, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def uninterrupted(command):
    arguments, directory = command("whole")
    completed = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    return directory, completed


def test_killed_at_random_moments_it_ends_with_the_same_numbers(command, uninterrupted):
    arguments, directory = command("killed")
    draw = random.Random(5)
    for at in sorted(draw.sample(range(1, ROUNDS), 2)):
        process = start(arguments)
        assert wait_for_round(process, directory, at)
        time.sleep(draw.uniform(0, 0.1))
        pids = children(process.pid)
        process.kill()
        process.communicate()
        assert pids, "the program has a worker process"
        assert_all_end(pids)
    forked.run(arguments, cwd=ROOT, capture_output=True, check=True)
    assert_same_numbers(directory, uninterrupted[0])


def last_round(directory):
    """The last round on record, of which there is a checkpoint."""
    done = len((directory / "metrics.csv").read_text().splitlines()) - 1
    assert f"round_{done}" in os.listdir(directory / "checkpoints")
    return done


def ask_to_stop(arguments, directory, round_number, signal_number):
    process = start(arguments)
    assert wait_for_round(process, directory, round_number)
    pids = children(process.pid)
    process.send_signal(signal_number)
    started = time.monotonic()
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert process.returncode == 128 + signal_number
    assert "Traceback" not in output
    assert "resumes from here" in output
    assert_all_end(pids)
    assert last_round(directory) >= round_number


def lose_the_terminal(arguments, directory, round_number):
    terminal, inside = os.openpty()
    process = forked.Popen(arguments, cwd=ROOT, stdout=inside, stderr=inside)
    os.close(inside)
    assert wait_for_round(process, directory, round_number)
    os.close(terminal)  # what the program prints from now on is an error
    time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 128 + signal.SIGHUP
    assert last_round(directory) >= round_number


def test_asked_to_stop_it_saves_leaves_at_once_and_the_same_command_resumes(command, uninterrupted):
    """By the loss of its terminal, SIGTERM and Ctrl-C, one after another."""
    arguments, directory = command("stopped")
    lose_the_terminal(arguments, directory, 5)
    ask_to_stop(arguments, directory, 9, signal.SIGTERM)
    ask_to_stop(arguments, directory, 13, signal.SIGINT)
    forked.run(arguments, cwd=ROOT, capture_output=True, check=True)
    assert_same_numbers(directory, uninterrupted[0])


def test_no_start_up_noise_reaches_the_user(uninterrupted):
    """Standard error has the data, the run and the progress; standard output has the report."""
    _, completed = uninterrupted
    data, run = completed.stderr.split("bars, 12 writers: 8 train, 4 test clients.")
    assert data.splitlines()[0].endswith("a by-writer archive; 12 writers, 420 examples.")
    assert all("archive" in line for line in data.splitlines())
    for line in run.splitlines()[1:]:
        assert re.search(r" · \d+:\d\d", line), line  # the progress line, which shows times
    assert completed.stdout.startswith("\nPersonalized FedAvg on bars, 12 writers")


@pytest.mark.parametrize(
    ("run", "arguments", "names"),
    [
        (forked.run, ["--rounds=many"], ["rounds", "many"]),
        (subprocess.run, ["--client_data=no/such.npz"], ["--client_data=no/such.npz"]),
    ],
    ids=["flag", "file"],
)
def test_bad_input_is_one_line_and_exit_status_1(tmp_path, run, arguments, names):
    completed = run(
        [sys.executable, "run_experiment.py", f"--output_dir={tmp_path}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 1
    assert completed.stdout == ""
    (line,) = completed.stderr.splitlines()
    assert line.startswith("Error: ")
    assert all(name in line for name in names)
    assert not list(tmp_path.glob("*/summary.json"))
