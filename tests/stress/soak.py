"""Many short runs that are killed at random again and again: they end like their twins, and leave nothing.

    python -m tests.stress.soak --runs=200 --at_once=2 --mean_seconds=20 --output=docs/reliability/soak.csv

Runs are forks of a process that has imported TensorFlow, which makes them short. After a random
time, which is exponential with the given mean, a run is killed (SIGKILL) or asked to end (SIGTERM, Ctrl-C, SIGHUP), or
its worker is killed. Then the same command is given again, until the run is finished. Several runs are made at once.
Ten runs in a row have one method and seed; they are compared with one twin, which is made first and without faults.

Writes a row for each run: its method, its faults, and whether it ended like its twin. At the end nothing may be left:
no process of a run, no file under a temporary name, no socket of a worker, no listening port, and no descriptor of this
process. Exit status 1 if a promise is broken.
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pandas as pd
import psutil

from benchmarks import recording
from tests import forked, processes
from tests.execution import test_child_processes
from tests.stress import marked_runs

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_OF_THE_WORKER = "kill -9 of the worker"
_SAME = 10  # runs in a row with one twin
_ROUNDS = 12
_MOST_STARTS = 40
_SECONDS = 600
_CHECKS = 15  # one a second, for what is about to end
_starting = threading.Lock()  # The server that forks takes one request at a time.


class Run:
    """A run of a sweep: a method and a seed, in a directory of its own.

    Attributes:
        twin: the directory of the run without faults.
    """

    def __init__(self, number: int, place: pathlib.Path, archive: pathlib.Path):
        methods, kind = list(marked_runs.METHODS), number // _SAME
        self.number = number
        self.method, self.seed = methods[kind % len(methods)], kind // len(methods) + 1
        self.log = place / f"log{number}"
        self._place = place
        self._archive = archive
        self.twin = place / f"twin{kind}"

    def command(self, name: str) -> tuple[list[str], pathlib.Path]:
        flags = [flag for flag in marked_runs.METHODS[self.method] if not flag.startswith("--stage_2_round")]
        stage = ["--stage_2_round=7"] if self.method == "personalized_fed_avg" else []
        arguments, directory = processes.command(self._archive, self._place, name, *flags, *stage)
        short = ["--test_clients=2", "--personalization_epochs=1", "--rounds_per_evaluation=0"]
        # absl takes the last of what is given twice.
        more = [f"--rounds={_ROUNDS}", *short, f"--seed={self.seed}", "--rounds_from=none"]
        return [*arguments, *more], directory

    def start(self, arguments: list[str]) -> subprocess.Popen:
        with _starting, self.log.open("ab") as output:
            return forked.Popen(arguments, cwd=processes.ROOT, stdout=output, stderr=output)


def without_faults(run: Run) -> None:
    """Makes the twin of a run."""
    run.start(run.command(run.twin.name)[0]).wait(_SECONDS)


def with_faults(run: Run, draw: random.Random, mean_seconds: float) -> tuple[list[str], pathlib.Path]:
    """Makes a run with faults; returns the faults, start by start, and its directory."""
    arguments, directory = run.command(f"faulty{run.number}")
    faults: list[str] = []
    for start in range(_MOST_STARTS):
        process = run.start(arguments)
        spared = start == _MOST_STARTS - 1
        while not spared:
            try:
                process.wait(draw.expovariate(1 / mean_seconds))
                break
            except subprocess.TimeoutExpired:
                kind = draw.choice([*_SIGNALS, _OF_THE_WORKER])
            if kind == _OF_THE_WORKER:
                faults.append(kind)
                for pid in processes.children(process.pid):
                    os.kill(pid, signal.SIGKILL)
                continue
            faults.append(signal.Signals(kind).name)
            process.send_signal(kind)
            break
        process.wait(_SECONDS)
        if (directory / "summary.json").exists():
            return faults, directory
    return faults, directory


def soak(run: Run, seed: int, mean_seconds: float) -> dict:
    """Makes a run with faults, and compares it with its twin; a row."""
    started = time.monotonic()
    faults, directory = with_faults(run, random.Random(f"{seed} {run.number}"), mean_seconds)
    same = (run.twin / "summary.json").exists() and marked_runs.same_numbers(directory, run.twin)
    leftovers = [path.name for path in directory.rglob("*") if "_temp" in path.name or path.suffix == ".temp"]
    said = run.log.read_text(errors="replace")
    if not same or "Traceback" in said:
        print(said[-3000:], file=sys.stderr)
    row = {
        "run": run.number,
        "method": run.method,
        "seed": run.seed,
        "faults": len(faults),
        **{name: faults.count(name) for name in (*(kind.name for kind in _SIGNALS), _OF_THE_WORKER)},
        "same_numbers": same,
        "traceback": "Traceback" in said,
        "files_left": len(leftovers),
        "seconds": round(time.monotonic() - started, 1),
    }
    if same:
        shutil.rmtree(directory)
    return row


class Left:
    """The present processes, ports, sockets and descriptors; later, what was added."""

    def __init__(self) -> None:
        self._before = self._now()

    def _now(self) -> dict[str, set]:
        sockets = {str(path) for path in pathlib.Path(tempfile.gettempdir()).glob("tff_worker-*")}
        descriptors = {path.name for path in pathlib.Path("/proc/self/fd").iterdir()}
        return {
            "processes": {process.pid for process in psutil.Process().children(recursive=True) if process.is_running()},
            "ports": test_child_processes.listening_ports(),
            "sockets of workers": sockets,
            "descriptors": descriptors,
        }

    def added(self) -> dict[str, int]:
        """How many of each kind are there that were not. Says which processes."""
        for pid in self._now()["processes"] - self._before["processes"]:  # orphans that have ended come to this one
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue
        now = self._now()
        for pid in now["processes"] - self._before["processes"]:
            print(f"left: {described(pid)}", file=sys.stderr)
        return {kind: len(now[kind] - self._before[kind]) for kind in now}

    def added_after_a_while(self) -> dict[str, int]:
        """As `added`, when what is about to end has ended.

        Time is counted in checks: if the machine stopped this process meanwhile, it stopped the others, too.
        """
        for _ in range(_CHECKS):
            if not any((added := self.added()).values()):
                break
            time.sleep(1)
        return added


def described(pid: int) -> str:
    """A process in words: its state, its parent, its age, where it waits, and its command."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            age, command = time.time() - process.create_time(), " ".join(process.cmdline()) or process.name()
            where = pathlib.Path(f"/proc/{pid}/wchan").read_text() or "nowhere"
            return f"{pid}, {process.status()} in {where}, child of {process.ppid()}, {age:.0f} s old: {command}"
    except (psutil.Error, OSError) as error:
        return f"{pid}: {error!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first; 200 runs may be made in parts")
    parser.add_argument("--at_once", type=int, default=2, help="how many at the same time")
    parser.add_argument("--mean_seconds", type=float, default=20.0, help="between a start and the next fault")
    parser.add_argument("--seed", type=int, default=1, help="of faults")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no other run begins")
    parser.add_argument("--output", type=pathlib.Path, help="CSV file for the rows")
    options = parser.parse_args()
    rows = []
    last_start = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary)
        os.environ["TMPDIR"] = tempfile.tempdir = str(place / "t")  # short, for sockets; other programs' are elsewhere
        (place / "t").mkdir()
        archive = marked_runs.write_archive(place / "made_up.npz")
        forked.run([sys.executable, "-m", "tests.stress.soak", "--help"], cwd=processes.ROOT, capture_output=True)
        left = Left()

        def row(run: Run) -> dict | None:
            return soak(run, options.seed, options.mean_seconds) if time.monotonic() < last_start else None

        with concurrent.futures.ThreadPoolExecutor(options.at_once) as executor:
            runs = [Run(number, place, archive) for number in range(options.first, options.first + options.runs)]
            list(executor.map(without_faults, {run.twin: run for run in runs}.values()))
            for found in executor.map(row, runs):
                if found is not None:
                    rows.append(found)
                    print(found, flush=True)
        added = left.added_after_a_while()
    table = pd.DataFrame(rows)
    for kind, count in added.items():
        table[f"{kind} left"] = count
    same = table["same_numbers"].sum()
    print(f"{len(table)} runs, {table['faults'].sum()} faults, {same} ended as their twins; left: {added}")
    if options.output:
        recording.write(table, options.output)
    failed = ~table["same_numbers"] | table["traceback"] | table["files_left"].astype(bool)
    sys.exit(int(failed.any() or any(added.values())))


if __name__ == "__main__":
    main()
