"""Faults around a run: a second process, changed data, a full disk. Each gives one line, and nothing is lost."""

import os
import shutil
import signal
import subprocess

import numpy as np
import pytest

from tests import forked, processes


@pytest.fixture(scope="module")
def archive(by_writer_archive, tmp_path_factory):
    """A copy of the archive that a test may change."""
    return shutil.copy(by_writer_archive, tmp_path_factory.mktemp("data") / "bars.npz")


METHOD = "--method=fed_avg", "--strategies=fine_tune"


@pytest.fixture(scope="module")
def command(archive, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return lambda name: processes.command(archive, place, name, *METHOD)


@pytest.fixture(scope="module")
def uninterrupted(command):
    arguments, directory = command("whole")
    forked.run(arguments, capture_output=True, check=True)
    return directory


def refusal(arguments):
    """The one line with which the program refuses to run, or to resume."""
    completed = forked.run(arguments, capture_output=True, text=True, check=False)
    assert completed.returncode == 1, completed.stderr
    assert completed.stdout == ""
    *before, line = completed.stderr.splitlines()
    assert line.startswith("Error: ")
    # Findings about the data, the run and, after a second, the progress line come first.
    expected = ("archive", "Run directory:", " · 0:")
    assert all(any(words in other for words in expected) for other in before), before
    return line


def stopped_after(arguments, directory, round_number):
    process = processes.start(arguments)
    assert processes.wait_for_round(process, directory, round_number)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_second_process_on_the_same_run_is_refused(command, uninterrupted):
    arguments, directory = command("twice")
    process = processes.start(arguments)
    assert processes.wait_for_round(process, directory, 3)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert f"is being written by another process ({process.pid})" in refusal(arguments)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.communicate()
    assert process.returncode == 0
    processes.assert_same_numbers(directory, uninterrupted)


def test_data_that_changed_or_vanished_since_the_run_began_is_refused(
    command, uninterrupted, archive, by_writer_archive
):
    arguments, directory = command("changed")
    stopped_after(arguments, directory, 8)
    arrays = dict(np.load(archive))
    arrays["labels"][0] ^= 1
    np.savez(archive, **arrays)
    line = refusal(arguments)
    assert f"--client_data={archive}: the data has changed since the run in {directory} began" in line
    archive.unlink()
    assert str(archive) in refusal(arguments)
    shutil.copy(by_writer_archive, archive)
    forked.run(arguments, capture_output=True, check=True)
    processes.assert_same_numbers(directory, uninterrupted)


@pytest.fixture(scope="module")
def stopped(command):
    """A run that was stopped after its 10th round, or a few more."""
    arguments, directory = command("stopped")
    stopped_after(arguments, directory, 10)
    return arguments, directory


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
def test_damaged_records_are_named_before_anything_is_computed(stopped, damage, names, tmp_path):
    arguments, directory = stopped
    copy = shutil.copytree(directory, tmp_path / directory.name)
    damage(copy)
    before = {path: path.read_bytes() for path in copy.glob("*.*") if path.name != "worker.log"}
    line = refusal([*arguments, f"--output_dir={tmp_path}"])
    for name in names:
        assert name in line
    for path, content in before.items():
        assert path.read_bytes() == content


def test_records_beyond_the_checkpoint_are_written_anew_even_if_damaged(stopped, uninterrupted, tmp_path):
    arguments, directory = stopped
    copy = shutil.copytree(directory, tmp_path / directory.name)
    with (copy / "metrics.csv").open("a") as file:
        file.write("1")  # of a row of round 1x
    with (copy / "evaluations.csv").open("a") as file:
        file.write("15,test_sam")
    forked.run([*arguments, f"--output_dir={tmp_path}"], capture_output=True, check=True)
    processes.assert_same_numbers(copy, uninterrupted)


def test_a_damaged_checkpoint_is_set_aside_and_costs_nothing_but_time(stopped, uninterrupted, tmp_path):
    arguments, directory = stopped
    copy = shutil.copytree(directory, tmp_path / directory.name)
    newest = max(copy.glob("checkpoints/round_*.json"), key=lambda path: int(path.stem.removeprefix("round_")))
    variables = next(newest.with_suffix("").glob("variables/*data*"))
    variables.write_bytes(variables.read_bytes()[:-9] + b"\0" * 9)
    completed = forked.run([*arguments, f"--output_dir={tmp_path}"], capture_output=True, text=True, check=True)
    assert f"{newest.stem}: variables/{variables.name} is damaged. It is renamed" in completed.stderr
    processes.assert_same_numbers(copy, uninterrupted)


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


def test_an_output_directory_that_is_read_only_is_refused(small_disk, archive):
    disk, _ = small_disk
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    arguments, directory = processes.command(archive, disk, "run", *METHOD)
    line = refusal(arguments)
    assert f"--output_dir={disk}: cannot write {directory} (Read-only file system)" in line


def test_a_full_disk_is_one_line_and_costs_the_rounds_since_the_last_checkpoint(small_disk, archive, uninterrupted):
    disk, resize = small_disk
    arguments, directory = processes.command(archive, disk, "run", *METHOD)
    line = None
    for kilobytes in (500, 1500, 20_000):  # each time it gets further
        resize(f"{kilobytes}k")
        completed = forked.run(arguments, capture_output=True, text=True, check=False)
        if not completed.returncode:
            break
        assert completed.returncode == 1
        assert "Traceback" not in completed.stderr
        line = completed.stderr.replace("\r", "\n").splitlines()[-1]
        assert line.startswith("Error: ")
        assert "No space left on device" in line
    assert line, "the disk was never full"
    processes.assert_same_numbers(directory, uninterrupted)
