"""The program as a process, its children and its records."""

import json
import pathlib
import subprocess
import sys
import time

from tests import forked

ROOT = pathlib.Path(__file__).parent.parent
ROUNDS = 24
RECORDS = ("metrics.csv", "evaluations.csv", "distribution.csv")
_MORE_RECORDS = (
    "clients.csv",
    "choice.csv",
    "chosen_clients.csv",
    "participants.csv",
    "k_shot.csv",
    "models/*.npz",
)  # of some runs


def command(archive, output_dir, name, *method):
    """The arguments of a small run of many short rounds, and its run directory."""
    return [
        sys.executable,
        str(ROOT / "run_experiment.py"),
        f"--client_data={archive}",
        f"--output_dir={output_dir}",
        f"--run_name={name}",
        "--model=linear",
        *(method or ["--method=personalized_fed_avg", "--stage_2_round=13", "--strategies=fine_tune"]),
        f"--rounds={ROUNDS}",
        "--local_epochs=2",
        "--clients_per_round=3",
        "--test_clients=4",
        "--rounds_per_evaluation=5",
        "--rounds_per_checkpoint=3",
        "--noplots",
    ], output_dir / name


def start(arguments):
    return forked.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_round(process, directory, round_number):
    """Waits until metrics.csv has a round or the process ends; returns whether it has."""
    while process.poll() is None:
        path = directory / "metrics.csv"
        if path.exists() and len(path.read_text().splitlines()) > round_number:
            return True
        time.sleep(0.02)
    return False


def children(pid):
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listing.stdout.split()]


def _state(pid):
    """The letter of a process's state in /proc; "Z" if it does not exist."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def is_running(pid):
    return _state(pid) != "Z"


def is_stopped(pid):
    return _state(pid) == "T"


def assert_all_end(pids):
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a child process outlived the program"
        time.sleep(0.1)


def _records(directory):
    """The paths of a run's records in its directory, including each client's last state."""
    more = (path for pattern in _MORE_RECORDS for path in directory.glob(pattern))
    states = sorted(directory.glob("client_states/*.npz"), key=lambda path: int(path.stem.split(".")[1]))
    newest = {path.stem.split(".")[0]: path for path in states}.values()
    return [*RECORDS, *sorted(path.relative_to(directory).as_posix() for path in (*more, *newest))]


def assert_same_numbers(directory, other):
    assert _records(directory) == _records(other)
    for name in _records(directory):
        assert (directory / name).read_bytes() == (other / name).read_bytes(), name
    one, two = (json.loads((path / "summary.json").read_text()) for path in (directory, other))
    for summary in (one, two):
        del summary["times"], summary["run_name"]
    assert one == two
