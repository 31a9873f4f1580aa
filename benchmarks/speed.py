"""Speed compared with the alternatives, from one interleaved run on this machine.

    python -m benchmarks.speed                          # all tasks, 5 rounds each, as in `make benchmark`
    python -m benchmarks.speed --tasks=reptile --repetitions=9
    python -m benchmarks.speed --tasks=training --beside=../before --contenders ours before raw

All contenders of a task wait in their own processes and take turns, one round at a time. So other work of the machine
affects all of them equally: compare ratios, not seconds. Peers (PyTorch, pfl-research, FedJAX, Flower) take part in
`training` if `python -m benchmarks.peers.environments all` has made their environments. Every round is written to
`speed.csv` in --output_dir, with the versions and the commit. `processor_seconds` are those of the contender's
processes. If other programs run too, they are more reliable than wall time. With --beside, another checkout of this
project takes part as `before`.
"""

import contextlib
import pathlib
import subprocess
import sys
from collections.abc import Container

import pandas as pd

from benchmarks import contenders, recording, tasks
from benchmarks.peers import environments
from tff_personalization.execution import worker_binary

TASKS = ("training", "reptile", "fed_sgd", "evaluation", "text")
ONLY_IN = {"keras": TASKS[:-1], "gemm": ("training",), "raw_fused": ("training", "evaluation")}
PEERS = {
    "pytorch": ["pytorch"],
    "pytorch, processes": ["pytorch", "--processes"],
    "pfl_research, processes": ["pfl_research", "--processes"],
    "fedjax": ["fedjax"],
    "flower": ["flower"],
}


class _Contender:
    """A contender's process, which does a round on request."""

    def __init__(self, command: list[str], directory: pathlib.Path):
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.versions = self._answer()["ready"]

    def round_seconds(self) -> tuple[float, float]:
        """The wall seconds of a round, and the processor seconds of all of the contender's processes."""
        assert self._process.stdin is not None
        before = recording.processor_seconds(self._process.pid)
        print(file=self._process.stdin, flush=True)
        seconds = self._answer()["seconds"]
        return seconds, recording.processor_seconds(self._process.pid) - before

    def _answer(self) -> dict:
        assert self._process.stdout is not None
        answer = recording.answer(self._process.stdout)
        if answer is None:
            raise RuntimeError(f"the process ended with status {self._process.wait()}")
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _commands(task: str) -> dict[str, list[str] | None]:
    """The command of each contender of a task; None for a peer without an environment."""
    names = [name for name in contenders.BUILDERS if task in ONLY_IN.get(name, TASKS)]
    commands: dict[str, list[str] | None] = {
        name: [sys.executable, "-m", "benchmarks.contenders", name, task] for name in names
    }
    if task == "training":
        for name, (module, *options) in PEERS.items():
            python = environments.python_of(module)
            commands[name] = [str(python), "-m", f"benchmarks.peers.{module}", *options] if python else None
    return commands


def measure(
    task: str, repetitions: int, beside: pathlib.Path | None = None, chosen: Container[str] | None = None
) -> pd.DataFrame:
    """One row per contender and round of a task: wall and processor seconds, visits a second, versions.

    Args:
        task: one of `TASKS`.
        repetitions: rounds of each contender.
        beside: another checkout of this project, which takes part as `before`.
        chosen: which contenders take part; None for all.
    """
    rows, ready = [], {}
    commands = _commands(task)
    if beside is not None:
        commands["before"] = commands["ours"]
    try:
        for name, command in commands.items():
            if chosen is not None and name not in chosen:
                continue
            if command is None:
                print(f"  {name}: not installed, left out", flush=True)
                continue
            try:
                ready[name] = _Contender(command, beside if beside and name == "before" else recording.ROOT)
            except RuntimeError as error:
                print(f"  {name}: does not run ({error}), left out", flush=True)
        for repetition in range(repetitions):
            for name, contender in ready.items():
                seconds, processor_seconds = contender.round_seconds()
                rows.append(
                    {
                        "task": task,
                        "contender": name,
                        "repetition": repetition,
                        "seconds": round(seconds, 4),
                        "processor_seconds": round(processor_seconds, 2),
                        "per_second": round(tasks.visits(task, tasks.work_of(task)) / seconds, 2),
                        "versions": recording.words(contender.versions),
                    }
                )
    finally:
        for contender in ready.values():
            contender.close()
    return pd.DataFrame(rows)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Median, least and most visits per second of each contender, and the ratio of our median to its median.

    If processor seconds are recorded, also the ratio of its median processor seconds to ours.
    """
    by_contender = table.groupby("contender", sort=False)
    speeds = by_contender["per_second"].agg(["median", "min", "max"])
    speeds["ours is × as fast"] = speeds.loc["ours", "median"] / speeds["median"]
    if "processor_seconds" in table:
        processor = by_contender["processor_seconds"].median()
        speeds["× ours's processor seconds"] = processor / processor["ours"]
    return speeds


def main() -> None:
    parser = recording.parser(__doc__, 5, "rounds of each contender")
    parser.add_argument("--tasks", default=",".join(TASKS), help="which tasks, separated by commas")
    known = ("ours", "before", *list(contenders.BUILDERS)[1:], *PEERS)
    parser.add_argument("--contenders", nargs="+", choices=known, help="which contenders; all unless given")
    parser.add_argument("--beside", type=pathlib.Path, help="another checkout of this project, to compare with")
    options = parser.parse_args()
    chosen = recording.chosen(parser, "tasks", options.tasks, TASKS)
    if options.beside and not (options.beside / "benchmarks" / "contenders.py").is_file():
        parser.error(f"--beside={options.beside}: no checkout of this project; name the directory of one")
    if options.contenders and "ours" not in options.contenders:
        parser.error("--contenders: add ours, with which the others are compared")
    tables = []
    for task in chosen:
        unit = {"evaluation": "clients", "text": "sequences"}.get(task, "examples")
        print(f"\n{task}, {unit} per second, {worker_binary.available_cores()} cores", flush=True)
        tables.append(measure(task, options.repetitions, options.beside, options.contenders))
        print(summarize(tables[-1]).round(2).to_string(), flush=True)
    recording.write(pd.concat(tables), options.output_dir / "speed.csv")


if __name__ == "__main__":
    main()
