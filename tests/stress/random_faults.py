"""Faults at random moments: does the same command go on, and end with the numbers of a run without faults?

    python -m tests.stress.random_faults --faults=60 --output=docs/reliability/faults.csv

Runs several methods on small data, each first without faults and then with faults until enough have been injected: the
program or TFF's worker process is killed, or the program is asked to stop. After a fault the same command is given
again. Faults of the worker alone are for the program to survive by itself. Writes one row for each fault: method, kind,
moment (what the program was doing), seconds since its start, rounds it had done, rounds that had to be done again,
whether a child process outlived it, whether the run ended with the same numbers. Exit status 1 if one did not.
"""

import argparse
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pandas as pd

from tests import processes

METHODS = {
    "personalized_fed_avg": ["--method=personalized_fed_avg", "--stage_2_round=21"],
    "scaffold": ["--method=scaffold"],
    "ifca": ["--method=ifca", "--clusters=2"],
    "fed_avg, faulty clients": [
        "--method=fed_avg",
        "--server_optimizer=adam",
        "--client_dropout_probability=0.3",
        "--straggler_probability=0.3",
    ],
}
KINDS = {
    "kill -9 of the program": signal.SIGKILL,
    "SIGTERM": signal.SIGTERM,
    "Ctrl-C": signal.SIGINT,
    "kill -9 of the worker": signal.SIGKILL,
}
_SECONDS_TO_END = 15


def write_archive(path: pathlib.Path) -> pathlib.Path:
    """Twelve made-up writers of four classes, in random pixels with a bar for the class."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 4, 360)
    images = rng.integers(0, 120, (360, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[5 * label : 5 * label + 4, 4:24] += 100
    np.savez(path, images=images, labels=labels, writer=rng.integers(0, 12, 360))
    return path


def rounds_done(directory: pathlib.Path) -> int:
    """The rounds of which metrics.csv tells."""
    try:
        return len((directory / "metrics.csv").read_text().splitlines()) - 1
    except FileNotFoundError:
        return 0


def newest_checkpoint(directory: pathlib.Path) -> int:
    """The round of the newest checkpoint that is whole."""
    return max(
        (int(path.stem.removeprefix("round_")) for path in directory.glob("checkpoints/round_*.json")), default=0
    )


def moment(directory: pathlib.Path, seconds: float) -> str:
    """What the program is doing, as far as its records tell."""
    if (directory / "summary.json").exists():
        return "after the summary"
    if list(directory.glob("checkpoints/*_temp*")):
        return "writing a checkpoint"
    done = rounds_done(directory)
    if done == processes.ROUNDS:
        return "final evaluation"
    if done:
        return "rounds"
    return "starting" if seconds < 2 or not directory.exists() else "building, first round"


def inject(kind: str, process: subprocess.Popen, delay: float) -> bool:
    """Waits, then injects a fault; returns whether there was anything left to hit."""
    try:
        process.wait(timeout=delay)
        return False
    except subprocess.TimeoutExpired:
        pass
    if kind != "kill -9 of the worker":
        process.send_signal(KINDS[kind])
        return True
    workers = processes.children(process.pid)
    for pid in workers:
        subprocess.run(["kill", "-9", str(pid)], check=False)
    return bool(workers)


def run_with_faults(
    arguments: list[str],
    directory: pathlib.Path,
    expected: pathlib.Path,
    faults: int,
    draw: random.Random,
    seconds: float,
) -> list[dict]:
    """Runs to the end, again and again, until so many faults were injected; a row for each.

    Args:
        arguments: the command.
        directory: its run directory.
        expected: that of a run without faults.
        faults: how many.
        draw: of kinds and moments.
        seconds: how long a run takes: a fault comes within that time of a start.
    """
    rows: list[dict] = []
    of_this_run = 0  # rows before are of runs that have ended
    while True:
        started = time.monotonic()
        process, output = processes.start(arguments), None
        while len(rows) < faults:
            kind = draw.choice(list(KINDS))
            hit = inject(kind, process, draw.uniform(0, seconds))
            if not hit and process.poll() is not None:
                break
            if not hit:
                continue
            elapsed = time.monotonic() - started
            children = processes.children(process.pid)
            now = moment(directory, elapsed)
            alone = kind == "kill -9 of the worker"
            if not alone:
                output, _ = process.communicate(timeout=60)
            done = rounds_done(directory)
            survived = not alone and outlives(children)
            rows.append(
                {
                    "kind": kind,
                    "moment": now,
                    "seconds": round(elapsed, 1),
                    "rounds_done": done,
                    "rounds_again": 0 if alone else done - newest_checkpoint(directory),
                    "child_outlived": survived,
                }
            )
            if not alone:
                break
        if output is None:
            output, _ = process.communicate()
        if "Traceback" in output:
            print(output, file=sys.stderr)
        for row in rows[of_this_run:]:
            row["traceback"] = row.get("traceback", False) or "Traceback" in output
        if process.returncode == 0 and (directory / "summary.json").exists():
            same = same_numbers(directory, expected)
            for row in rows[of_this_run:]:
                row["same_numbers"] = same
            if len(rows) >= faults:
                return rows
            of_this_run = len(rows)
            shutil.rmtree(directory)  # It came through: once more from the beginning.


def same_numbers(directory: pathlib.Path, expected: pathlib.Path) -> bool:
    """Whether two runs have the same records, times aside."""
    try:
        processes.assert_same_numbers(directory, expected)
        return True
    except AssertionError as error:
        print(f"{directory}: {error}", file=sys.stderr)
        return False


def outlives(children: list[int]) -> bool:
    """Whether a child process is still there after a while."""
    deadline = time.monotonic() + _SECONDS_TO_END
    while any(processes.is_running(pid) for pid in children):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.1)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=60, help="how many in all")
    parser.add_argument("--seed", type=int, default=1, help="of kinds and moments")
    parser.add_argument("--output", type=pathlib.Path, help="CSV file for the rows")
    options = parser.parse_args()
    draw, tables = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(temporary)
        archive = write_archive(place / "made_up.npz")
        for name, method in METHODS.items():
            whole, expected = processes.command(archive, place / "whole", name, *method)
            started = time.monotonic()
            subprocess.run(whole, capture_output=True, check=True)
            seconds = time.monotonic() - started
            arguments, directory = processes.command(archive, place / "faulty", name, *method)
            faults = -(-options.faults // len(METHODS))
            table = pd.DataFrame(run_with_faults(arguments, directory, expected, faults, draw, seconds))
            table.insert(0, "method", name)
            tables.append(table)
            print(table.to_string(index=False), flush=True)
    table = pd.concat(tables)
    summary = table.groupby(["kind", "moment"]).agg(
        injected=("kind", "size"),
        same_numbers=("same_numbers", "sum"),
        rounds_again=("rounds_again", "max"),
        child_outlived=("child_outlived", "sum"),
    )
    print(summary.to_string())
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.output, index=False)
    sys.exit(int((~table["same_numbers"] | table["child_outlived"] | table["traceback"]).any()))


if __name__ == "__main__":
    main()
