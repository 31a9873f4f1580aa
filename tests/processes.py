"""The program as a process, and what its children and records are."""

import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
ROUNDS = 40
RECORDS = ("metrics.csv", "evaluations.csv", "clients.csv", "distribution.csv")


def command(archive, output_dir, name, *method):
    """The arguments of a small run of many short rounds, and its run directory."""
    return [
        sys.executable,
        str(ROOT / "run_experiment.py"),
        f"--client_data={archive}",
        f"--output_dir={output_dir}",
        f"--run_name={name}",
        "--model=linear",
        *(method or ["--method=personalized_fed_avg", "--stage_2_round=21"]),
        f"--rounds={ROUNDS}",
        "--local_epochs=2",
        "--clients_per_round=3",
        "--test_clients=4",
        "--rounds_per_evaluation=5",
        "--rounds_per_checkpoint=3",
        "--noplots",
    ], output_dir / name


def start(arguments):
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_round(process, directory, round_number):
    """Waits until metrics.csv holds a round; returns whether it does, rather than that the process ended."""
    while process.poll() is None:
        path = directory / "metrics.csv"
        if path.exists() and len(path.read_text().splitlines()) > round_number:
            return True
        time.sleep(0.02)
    return False


def children(pid):
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listing.stdout.split()]


def is_running(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def assert_all_end(pids):
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a child process outlived the program"
        time.sleep(0.1)


def assert_same_numbers(directory, other):
    for name in RECORDS:
        assert (directory / name).read_bytes() == (other / name).read_bytes(), name
    one, two = (json.loads((path / "summary.json").read_text()) for path in (directory, other))
    for summary in (one, two):
        del summary["times"], summary["run_name"]
    assert one == two
