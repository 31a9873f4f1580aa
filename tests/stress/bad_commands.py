"""Gives malformed input of every kind to the program itself: does it end in one line that says what was wrong?

    python -m tests.stress.bad_commands --each=20 --output=docs/reliability/bad_commands.csv

Calls run_experiment.py with the cases of `malformed_data` and `malformed_runs`, flag files and sweep files, and a
number of random accidents (`bad_input`) of each kind that needs no run. Each must end in time. It must have exit status
1, nothing on standard output, and one line `Error: …` as the last of standard error; or, if the input was valid, a run.
Writes a row for each case: kind, name, `refused`, `accepted` or another outcome, the seconds (about 6 for the program's
start), and the most memory. Exit status 1 if there is another outcome.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pandas as pd

from benchmarks import recording
from tests import forked, processes
from tests.stress import bad_input, cases, malformed_data, malformed_forms, malformed_runs

_LARGE, _LONG_SECONDS = "a million clients", 600.0
_MOST_MEGABYTES = 8_000
# Allowed on standard error before the error line: the run's description, progress, warnings.
_BEFORE = re.compile(
    r".*Run directory: |The (data|archive|examples) |.* · \d+:\d\d|"
    r".*\d+%\||.*\d+ (clients?|rounds?|examples)|.*(it|s)/|W\d{4} |WARNING: |x\.toml: |\[\d+/\d+\]"
)


def _flag_file(content: bytes) -> cases.Make:
    def make(place: pathlib.Path) -> list[str]:
        (place / "x.flags").write_bytes(content)
        return [*cases.IMAGES, cases.CACHED, "--flagfile=x.flags"]

    return make


FLAG_FILES = {
    "an unknown flag": _flag_file(b"--no_such_flag=1\n"),
    "a value of another kind": _flag_file(b"--rounds=many\n"),
    "a flag that is not read": _flag_file(b"--method=fed_avg\n--clusters=3\n"),
    "bytes": _flag_file(bytes(range(256))),
    "itself": _flag_file(b"--flagfile=x.flags\n"),
    "a file that is not there": _flag_file(b"--flagfile=y.flags\n"),
    "words": _flag_file(b"rounds 20\n"),
    "missing": lambda place: [*cases.IMAGES, "--flagfile=x.flags"],
    "a directory": lambda place: [*cases.IMAGES, f"--flagfile={place}"],
}
_SWEEP = ("--model=linear", *cases.SMALL, cases.CACHED, "--sweep=x.toml")


def _sweep_file(content: bytes) -> cases.Make:
    def make(place: pathlib.Path) -> list[str]:
        (place / "x.toml").write_bytes(content)
        return [*_SWEEP]

    return make


SWEEP_FILES = {
    "no TOML": _sweep_file(b"[grid\n"),
    "bytes": _sweep_file(bytes(range(256))),
    "empty": _sweep_file(b""),
    "an unknown table": _sweep_file(b"[grids]\nseed = [1]\n"),
    "an unknown flag": _sweep_file(b"[grid]\nno_such_flag = [1]\n"),
    "a value that is not a list": _sweep_file(b"[grid]\nlocal_steps = 1\n"),
    "a value of another kind": _sweep_file(b'[grid]\nserver_learning_rate = ["fast"]\n'),
    "the same run twice": _sweep_file(b"[grid]\nserver_learning_rate = [0.5, 0.5]\n"),
    "tables in tables": _sweep_file(b"[grid.seed]\na = 1\n"),
    "a search without bounds": _sweep_file(b"[search]\ntrials = 3\n"),
    "missing": lambda place: [*_SWEEP],
}


def by_hand() -> Iterator[cases.Case]:
    """Cases that need no run."""
    for kind, made in (
        ("by-writer archive", malformed_data.ARCHIVES),
        ("SQLite file", malformed_data.DATABASES),
        ("SQLite file of text", malformed_data.TEXTS),
        *malformed_forms.KINDS.items(),
        ("flag file", FLAG_FILES),
        ("sweep file", SWEEP_FILES),
    ):
        for name, make in made.items():
            yield cases.Case(kind, name, make)


def _by_accident(make: Callable, draw: random.Random, arguments: list[str]) -> cases.Make:
    def make_arguments(place: pathlib.Path) -> list[str]:
        make(place, draw)
        return arguments

    return make_arguments


def _flags(draw: random.Random) -> cases.Make:
    few = ["--client_data=digits", "--task=emnist10"]
    arguments = [argument.replace("\x00", "0") for argument in bad_input.flag_arguments(draw)]  # a shell has no such
    return lambda place: [*cases.IMAGES, *few, *arguments]


def _damaged_text(draw: random.Random) -> cases.Make:
    def make(place: pathlib.Path) -> list[str]:
        arguments = malformed_data.database("", cases.TEXT)(place)
        (place / "x.sqlite").write_bytes(bad_input.damaged((place / "x.sqlite").read_bytes(), draw))
        return arguments

    return make


def by_chance(each: int, seed: int) -> Iterator[cases.Case]:
    """A number of accidents of each kind that needs no run."""
    archive, database = ([*cases.IMAGES, f"--client_data=x.{kind}"] for kind in ("npz", "sqlite"))
    database.append(cases.CACHED)
    kinds = {
        "by-writer archive": [(bad_input.npz_bytes, archive), (bad_input.npz_arrays, archive)],
        "SQLite file": [(bad_input.sqlite_bytes, database), (bad_input.sqlite_rows, database)],
        "flag file": [(bad_input.flag_file, [*cases.IMAGES, "--client_data=digits", "--flagfile=x.flags"])],
        "sweep file": [(bad_input.sweep_file, [*_SWEEP])],
    }
    for number in range(each):
        name = f"accident {number}"
        for kind, makers in kinds.items():
            make, arguments = makers[number % len(makers)]
            yield cases.Case(kind, name, _by_accident(make, random.Random(f"{kind} {seed} {number}"), arguments))
        for kind, maker in (("flags", _flags), ("SQLite file of text", _damaged_text)):
            yield cases.Case(kind, name, maker(random.Random(f"{kind} {seed} {number}")))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the program took a case: `refused`, `accepted`, or what else happened."""

    found: str
    seconds: float
    megabytes: float
    last_line: str


def _process(
    popen: type[subprocess.Popen], arguments: list[str], place: pathlib.Path, stdout: BinaryIO, stderr: BinaryIO
) -> int:
    """Starts the program; its process id."""
    command = [sys.executable, str(processes.ROOT / "run_experiment.py"), *arguments]
    process = popen(command, cwd=place, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
    process.returncode = 0  # so that the next Popen does not take the end of this one, for which `run` waits
    return process.pid


def run(case: cases.Case, popen: type[subprocess.Popen] = subprocess.Popen) -> Outcome:
    """Calls the program with a case, in a directory that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="bad_command_") as directory:
        place = pathlib.Path(directory)
        arguments, started = case.make(place), time.monotonic()
        with (place / "stdout").open("wb") as stdout, (place / "stderr").open("wb") as stderr:
            pid = _process(popen, arguments, place, stdout, stderr)
            ended, status, usage = 0, 0, None
            while not ended:
                time.sleep(0.05)
                if time.monotonic() - started > case.seconds:
                    os.kill(pid, signal.SIGKILL)
                ended, status, usage = os.wait4(pid, os.WNOHANG)
        seconds, megabytes = time.monotonic() - started, usage.ru_maxrss / 1e3 if usage else 0.0
        output, said = ((place / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        found = judged(os.waitstatus_to_exitcode(status), output, said)
        if seconds > case.seconds:
            found = f"more than {case.seconds:g} s"
        elif megabytes > _MOST_MEGABYTES:
            found = f"more than {_MOST_MEGABYTES} MB"
        elif case.kind != "flags" and "has no effect with" in said and "cache_dir" in said:
            found = "refused for what is not malformed"
        elif list(place.rglob(cases.CANARY)):
            found = "something of the input was executed"
        elif found == "accepted":
            found = _checked(place) or found
        lines = [line for line in said.replace("\r", "\n").split("\n") if line.strip()]
        return Outcome(found, seconds, megabytes, lines[-1] if lines else "")


def judged(status: int, output: str, said: str) -> str:
    """`refused` or `accepted`, or what is wrong with the program's end: by exit status and output."""
    lines = [line for line in said.replace("\r", "\n").split("\n") if line.strip()]
    if "Traceback" in said:
        return f"a traceback: {lines[-1]}"
    if status == 0:
        return "accepted"
    if status != 1:
        return f"exit status {status}"
    if output and "held-out clients" not in output:  # the figures of a finished run, whose plots are refused
        return f"a refusal on standard output: {output[:200]!r}"
    *before, last = lines or [""]
    others = [line for line in before if not _BEFORE.match(line)]
    if not last.startswith("Error: ") or others:
        return f"not one line: {[*others, last]}"
    return "refused"


def _checked(place: pathlib.Path) -> str | None:
    """What is wrong with the runs that a case made; None if nothing is."""
    summaries = list(place.glob("runs/**/summary.json"))
    for path in summaries:
        summary = json.loads(path.read_text())
        metrics = path.with_name("metrics.csv")
        rounds = pd.read_csv(metrics)["round"].tolist() if metrics.exists() else []
        if rounds != list(range(1, summary["rounds"] + 1)):
            return f"accepted, with rounds {rounds}"
        for name in ("initial_accuracy", "personalized_accuracy"):
            mean = summary[name]["mean"]
            if not (mean is None or mean != mean or 0 <= mean <= 1):
                return f"accepted, with {name} {mean}"
    return None if summaries else "exit status 0 without a run"


def try_all(all_cases: list[cases.Case], at_once: int) -> list[dict]:
    """A row for each case; with `at_once` of 0, forks (`tests.forked`) do, one at a time."""
    rows = []
    with concurrent.futures.ThreadPoolExecutor(at_once or 1) as pool:
        outcomes = pool.map(run, all_cases) if at_once else (run(case, forked.Popen) for case in all_cases)
        for case, outcome in zip(all_cases, outcomes, strict=True):
            rows.append(
                {
                    "kind": case.kind,
                    "name": case.name,
                    "found": outcome.found,
                    "by": "process" if at_once else "fork",
                    "seconds": round(outcome.seconds, 1),
                    "megabytes": round(outcome.megabytes),
                }
            )
            print(rows[-1], f"\n    {outcome.last_line[:300]}", flush=True)
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """By kind: tried, refused, accepted, anything else, the longest time, the most memory."""
    found = {name: table["found"].eq(name) for name in ("refused", "accepted")}
    return (
        table.assign(**found, other=~(found["refused"] | found["accepted"]))
        .groupby("kind", sort=False)
        .agg(
            tried=("kind", "size"),
            **{name: (name, "sum") for name in ("refused", "accepted", "other")},
            seconds=("seconds", "max"),
            megabytes=("megabytes", "max"),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=20, help="accidents of each kind")
    parser.add_argument("--seed", type=int, default=1, help="of the accidents")
    parser.add_argument("--at_once", type=int, default=2, help="programs at once; 0: forks (tests.forked)")
    parser.add_argument("--only", default="", help="the kinds whose names hold this regular expression")
    parser.add_argument("--skip", type=int, default=0, help="cases to skip, because they were tried before")
    parser.add_argument("--output", type=pathlib.Path, help="CSV file for the rows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        template = malformed_runs.Template(pathlib.Path(directory))
        made = [*by_hand(), *malformed_runs.of_runs(template), *by_chance(options.each, options.seed)]
        chosen = [case for case in made if re.search(options.only, case.kind)][options.skip :]
        rows = try_all(chosen, options.at_once)
    if re.search(options.only, _LARGE):
        # One at a time, for their memory.
        large = malformed_data.MILLIONS.items()
        rows += try_all([cases.Case(_LARGE, name, make, _LONG_SECONDS) for name, make in large], 1)
    table = pd.DataFrame(rows)
    print(summary(table).to_string())
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        recording.write(table, options.output)
    sys.exit(int(summary(table)["other"].any()))


if __name__ == "__main__":
    main()
