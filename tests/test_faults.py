"""Faults around a run: a second process, changed data, a full disk. Each gives one line, and nothing is lost."""

import os
import re
import shutil
import signal
import subprocess
from unittest import mock

import numpy as np
import pytest

from tests import forked, processes
from tff_personalization import errors
from tff_personalization.programs import rounds

SETTINGS = {"rounds": 12, "rounds_per_evaluation": 5, "rounds_per_checkpoint": 3}


def command(archive, place, name="run"):
    """As a process: the arguments of a run with these settings, and its directory."""
    settings = "--method=fed_avg", "--strategies=fine_tune", "--personalization_epochs=2"
    arguments, directory = processes.command(archive, place, name, *settings)
    return [*arguments, *(f"--{name}={value}" for name, value in SETTINGS.items())], directory


@pytest.fixture
def uninterrupted(_runs):
    """A run that a test must not change."""
    return _runs((*SETTINGS.items(), ("run_name", "whole")))


def refused(*words):
    """A context in which the program refuses to run, or to resume, in one line with these words."""
    return pytest.raises(errors.UserError, match="^" + "".join(f"(?=.*{re.escape(word)})" for word in words) + ".*$")


def test_a_second_process_on_the_same_run_is_refused(by_writer_archive, tmp_path, uninterrupted):
    arguments, directory = command(by_writer_archive, tmp_path)
    process = processes.start(arguments)
    assert processes.wait_for_round(process, directory, 3)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        second = forked.run(arguments, capture_output=True, text=True, check=False)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.communicate()
    assert process.returncode == 0
    assert (second.returncode, second.stdout) == (1, "")
    *before, line = second.stderr.splitlines()
    assert line.startswith("Error: ")
    assert f"is being written by another process ({process.pid})" in line
    # Findings about the data come first.
    assert all("archive" in other for other in before), before
    processes.assert_same_numbers(directory, uninterrupted)


def test_data_that_changed_or_vanished_since_the_run_began_is_refused(
    run, uninterrupted, by_writer_archive, stopped_after, tmp_path
):
    archive = shutil.copy(by_writer_archive, tmp_path / by_writer_archive.name)
    settings = {**SETTINGS, "client_data": str(archive)}
    with stopped_after(2):
        run(**settings)
    arrays = dict(np.load(archive))
    arrays["labels"][0] ^= 1
    np.savez(archive, **arrays)
    with refused(f"--client_data={archive}: the data has changed since the run in {tmp_path / 'run'} began"):
        run(**settings)
    archive.unlink()
    with refused(str(archive)):
        run(**settings)
    shutil.copy(by_writer_archive, archive)
    processes.assert_same_numbers(run(**settings), uninterrupted)


@pytest.fixture(scope="module")
def _stopped(_run_in, stopped_after, tmp_path_factory):
    directory = tmp_path_factory.mktemp("stopped")
    with stopped_after(10):
        _run_in(directory, **SETTINGS)
    return directory / "run"


@pytest.fixture
def stopped(_stopped, tmp_path):
    """A run that was stopped after its 10th round."""
    return shutil.copytree(_stopped, tmp_path / "run")


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def drop_line(path, number):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: number - 1] + lines[number:]))


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (lambda run: cut(run / "metrics.csv"), ["metrics.csv, line", "damaged"]),
        (lambda run: drop_line(run / "metrics.csv", 4), ["metrics.csv, line 4: damaged, a row of round 3"]),
        (lambda run: drop_line(run / "metrics.csv", 1), ["metrics.csv, line 2: damaged"]),
        (lambda run: (run / "metrics.csv").unlink(), ["metrics.csv, line 2: damaged"]),
        (lambda run: (run / "metrics.csv").write_bytes(b"\xff\x00" * 50), ["metrics.csv, line 2: damaged"]),
        (lambda run: cut(run / "evaluations.csv"), ["evaluations.csv, line", "damaged"]),
        (lambda run: (run / "evaluations.csv").write_text(""), ["evaluations.csv, line 2: damaged"]),
        (lambda run: cut(run / "config.json"), ["config.json is damaged", "move"]),
        (lambda run: (run / "config.json").write_text("[]"), ["config.json is damaged", "move"]),
    ],
    ids=range(9),
)
def test_damaged_records_are_named_before_anything_is_computed(run, stopped, damage, names):
    damage(stopped)
    before = {path: path.read_bytes() for path in stopped.glob("*.*") if path.name != "worker.log"}
    with refused(*names):
        run(**SETTINGS)
    for path, content in before.items():
        assert path.read_bytes() == content


def test_records_beyond_the_checkpoint_are_written_again_even_if_damaged(run, stopped, uninterrupted):
    with (stopped / "metrics.csv").open("a") as file:
        file.write("1")  # of a row of round 1x
    with (stopped / "evaluations.csv").open("a") as file:
        file.write("15,test_sam")
    processes.assert_same_numbers(run(**SETTINGS), uninterrupted)


def test_a_damaged_checkpoint_is_set_aside_and_costs_nothing_but_time(run, stopped, uninterrupted, caplog):
    newest = max(stopped.glob("checkpoints/round_*.json"), key=lambda path: int(path.stem.removeprefix("round_")))
    variables = next(newest.with_suffix("").glob("variables/*data*"))
    variables.write_bytes(variables.read_bytes()[:-9] + b"\0" * 9)
    processes.assert_same_numbers(run(**SETTINGS), uninterrupted)
    assert f"{newest.stem}: variables/{variables.name} is damaged. It is renamed" in caplog.text


@pytest.fixture
def before_round():
    """A context in which something happens before a round is trained."""

    def before_round(number, happens):
        train = rounds.train

        def train_then(program, state):
            if state.round_number == number - 1:
                happens()
            return train(program, state)

        return mock.patch.object(rounds, "train", train_then)

    return before_round


def test_a_directory_that_is_moved_during_the_run_leaves_nothing_behind_and_resumes(
    run, uninterrupted, tmp_path, before_round
):
    here, there = tmp_path / "run", tmp_path / "elsewhere"
    with before_round(5, lambda: here.rename(there)), refused(f"{here} was moved"):
        run(**SETTINGS)
    assert not here.exists()
    there.rename(here)
    processes.assert_same_numbers(run(**SETTINGS), uninterrupted)


def test_a_table_that_is_damaged_during_the_run_is_named_before_the_run_is_called_finished(run, tmp_path, before_round):
    table = tmp_path / "run" / "evaluations.csv"
    with before_round(7, table.unlink), refused(f"{table}, line 2: damaged"):
        run(**SETTINGS)
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A separate file system, and a function that changes its size."""
    mounted = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")

    def resize(size):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(tmp_path)], check=True)

    yield tmp_path, resize
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_an_output_directory_that_is_read_only_is_refused(run, small_disk):
    disk, _ = small_disk
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with refused(f"--output_dir={disk}: cannot write {disk / 'run'} (Read-only file system)"):
        run()


def test_a_full_disk_is_one_line_and_costs_the_rounds_since_the_last_checkpoint(
    run, small_disk, by_writer_archive, uninterrupted
):
    disk, resize = small_disk
    resize("500k")
    with pytest.raises(OSError, match="No space left on device"):
        run(**SETTINGS)
    resize("1000k")  # it gets further
    arguments, directory = command(by_writer_archive, disk)
    completed = forked.run(arguments, capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    assert "Traceback" not in completed.stderr
    line = completed.stderr.replace("\r", "\n").splitlines()[-1]
    assert line.startswith("Error: ")
    assert "No space left on device" in line
    assert (directory / "metrics.csv").exists()
    resize("20m")
    processes.assert_same_numbers(run(**SETTINGS), uninterrupted)
