"""Faults at random moments: does the same command resume, and end with the numbers of a run without faults?

    python -m tests.stress.random_faults --faults=100 --output=docs/reliability/faults.csv

Runs several methods on small data, first without faults and then with faults until enough have been injected. A fault
has a kind (`faults.FAULTS`) and hits the program at a moment (`moments.MOMENTS`), after a random time. The program is
stopped for an instant, so that its moment is known. If the fault ends it, the same command is given again. The program
must survive faults of the worker by itself. Every pair of kind and moment is tried, in random order.

Writes one row for each fault: the method, the kind, the moment, seconds since the program's start, how it ended ("goes
on", or its exit status), whether it said why in one line, the rounds it had done, those that were done again, whether a
child process outlived it, whether the run ended with the same numbers. Exit status 1 if something is not as promised.
"""

import argparse
import dataclasses
import itertools
import pathlib
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable

import pandas as pd

from benchmarks import recording
from tests import processes
from tests.stress import faults, marked_runs, moments

_FAULTS_OF_A_RUN = 5
_MOST_TRIES = 4
_BEFORE_ROUNDS = moments.MOMENTS[: moments.MOMENTS.index(moments.TRAINING)]
_WITHOUT_WORKER = (moments.STARTING, moments.READING, moments.REPORTING)


@dataclasses.dataclass
class Planned:
    """A planned fault, and how often its moment was not reached."""

    fault: faults.Fault
    moment: str
    tries: int = 0


def plan(count: int, draw: random.Random, kinds: Iterable[faults.Fault]) -> dict[str, list[Planned]]:
    """A number of faults for each method: every kind at every moment, repeatedly, each time in another order."""
    pairs = [
        (kind, moment)
        for kind, moment in itertools.product(kinds, moments.MOMENTS)
        if not (kind.to_the_worker and moment in _WITHOUT_WORKER)
    ]
    turns = itertools.chain.from_iterable(draw.sample(pairs, len(pairs)) for _ in itertools.count())
    plans: dict[str, list[Planned]] = {name: [] for name in marked_runs.METHODS}
    for kind, moment in itertools.islice(turns, count):
        # Only the first method has a second stage; else whoever has the fewest.
        name = (
            next(iter(marked_runs.METHODS))
            if moment == moments.STAGE_2
            else min(plans, key=lambda name: len(plans[name]))
        )
        plans[name].append(Planned(kind, moment))
    return plans


def in_order(planned: list[Planned], draw: random.Random) -> list[Planned]:
    """Faults in the order in which one run can have them: what comes at every start at any time between the others."""
    ordered = sorted(
        (one for one in planned if one.moment not in _BEFORE_ROUNDS), key=lambda one: moments.MOMENTS.index(one.moment)
    )
    for one in planned:
        if one.moment in _BEFORE_ROUNDS:
            ordered.insert(draw.randint(0, len(ordered)), one)
    return ordered


def run_with_faults(
    run: marked_runs.Run,
    planned: list[Planned],
    lasting: dict[str, list[float]],
    disk: faults.Disk,
    draw: random.Random,
) -> list[dict]:
    """Runs to the end, start after start, with the faults in their order; a row for each that found its moment.

    Those that did not are left in `planned`.
    """
    rows: list[dict] = []
    while True:
        process, waits = run.start(), False
        while planned and not waits:
            one = planned[0]
            usual = lasting.get(one.moment) or [0.05]
            skipped = 0 if one.moment in _BEFORE_ROUNDS else draw.randint(0, min(3, len(usual) - 1))
            if not marked_runs.stop_at(
                process, run, one.moment, skipped, draw.uniform(0, 0.9) * statistics.median(usual)
            ):
                break
            children, (_, now) = processes.children(process.pid), run.marks.read()
            if one.fault.to_the_worker and not children:
                process.send_signal(signal.SIGCONT)
                break
            planned.pop(0)
            rows.append({"kind": one.fault.name, "moment": now, "seconds": round(time.monotonic() - run.started, 1)})
            one.fault.inject(faults.Target(process.pid, tuple(children), disk))
            process.send_signal(signal.SIGCONT)
            waits = one.fault.name not in ("kill -9 of the worker", "worker stopped for 3 s")
            if waits:
                rows[-1].update(marked_runs.outcome(process, run, () if one.fault.to_the_worker else children))
                if now in _BEFORE_ROUNDS:  # An earlier fault already caused these rounds to be done again.
                    rows[-1]["rounds_again"] = 0
                disk.free()
            else:
                rows[-1].update(ended="goes on", rounds_done=marked_runs.rounds_done(run.directory), rounds_again=0)
        if not waits:
            ended = marked_runs.outcome(process, run, ())
            for row in rows[-1:]:  # what was to be resumed
                row["traceback"] = row.get("traceback", False) or ended["traceback"]
                row["ended"] = row["ended"] if process.returncode == 0 else ended["ended"]
            if process.returncode:
                return rows
        if process.returncode == 0 and run.finished:
            return rows


def faulty_runs(
    name: str,
    planned: list[Planned],
    place: pathlib.Path,
    archive: pathlib.Path,
    disk: faults.Disk,
    draw: random.Random,
) -> pd.DataFrame:
    """All faults of a method, a few in each run; a row for each."""
    expected = marked_runs.Run(place, archive, place / f"whole {name}", name)
    lasting = marked_runs.durations(expected)
    rows: list[dict] = []
    while planned:
        now, planned = in_order(planned[:_FAULTS_OF_A_RUN], draw), planned[_FAULTS_OF_A_RUN:]
        run = marked_runs.Run(place, archive, disk.path, name)
        of_this_run = run_with_faults(run, now, lasting, disk, draw)
        same = run.finished and marked_runs.same_numbers(run.directory, expected.directory)
        rows += [{"method": name, **row, "same_numbers": same} for row in of_this_run]
        for row in rows[len(rows) - len(of_this_run) :]:
            print(row, flush=True)
        shutil.rmtree(run.directory)
        for one in now:
            one.tries += 1
        planned += [one for one in now if one.tries < _MOST_TRIES]
        for one in now:
            if one.tries >= _MOST_TRIES:
                print(f"{name}: {one.fault.name}, {one.moment}: not met", file=sys.stderr)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """By kind and moment: injected, survived by the process itself, ended with the same numbers, most rounds again."""
    by_itself = table["ended"].isin(["goes on", 0])
    return (
        table.assign(by_itself=by_itself)
        .groupby(["kind", "moment"])
        .agg(
            injected=("kind", "size"),
            by_itself=("by_itself", "sum"),
            survived=("same_numbers", "sum"),
            rounds_again=("rounds_again", "max"),
        )
    )


def broken(table: pd.DataFrame) -> pd.Series:
    """The rows in which something is not as promised."""
    told = table["one_line"].ne(False)
    failed = table[["traceback", "child_outlived"]].eq(True).any(axis=1)
    return ~table["same_numbers"].astype(bool) | failed | ~told | table["ended"].eq("hung")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100, help="how many in all")
    parser.add_argument("--kind", action="append", help="of the faults; all if none is given")
    parser.add_argument("--seed", type=int, default=1, help="of kinds and moments")
    parser.add_argument("--output", type=pathlib.Path, help="CSV file for the rows")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary)
        archive, disk = marked_runs.write_archive(place / "made_up.npz"), faults.Disk(place / "disk")
        try:
            kinds = [kind for kind in faults.FAULTS if not options.kind or kind.name in options.kind]
            if not disk.mounted:
                print("File systems cannot be mounted here: no full disk.", file=sys.stderr)
                kinds = [kind for kind in kinds if kind.name != "disk full"]
            tables = []
            for name, planned in plan(options.faults, draw, kinds).items():
                if planned:
                    tables.append(faulty_runs(name, planned, place, archive, disk, draw))
        finally:
            disk.unmount()
    table = pd.concat(tables)
    print(summary(table).to_string())
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        recording.write(table, options.output)
    sys.exit(int(broken(table).any()))


if __name__ == "__main__":
    main()
