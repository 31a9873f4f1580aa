"""A user's waiting times: `--help`, the first round of a small run, and a whole small run.

    python -m benchmarks.start_up [--repetitions=7] [--beside=../before] [--quick]

Each command runs in its own process. Commands of this checkout and of that of `--beside` take turns. The first round is
timed from the command to its line in metrics.csv, with a warm cache. With --quick, `make run` takes part too.
`start_up.csv` in --output_dir has a row for each: wall seconds, and processor seconds of all of its processes.
"""

import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import pandas as pd

from benchmarks import recording

SMALL = (
    *("--client_data=handwriting", "--num_clients=20", "--rounds=1", "--clients_per_round=2", "--local_epochs=1"),
    *("--rounds_per_evaluation=0", "--personalization_epochs=1", "--noplots"),
)
QUICK = ("--flagfile=configs/quick.flags",)


def _seconds(checkout: pathlib.Path, flags: tuple[str, ...], until: Callable[[], bool] | None) -> tuple[float, float]:
    """Wall and processor seconds of a command. With `until`, the command is stopped when it prints that."""
    used = _processor_seconds()
    started = time.perf_counter()
    command = [sys.executable, "run_experiment.py", *flags]
    with subprocess.Popen(command, cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while until is not None and process.poll() is None and not until():
            time.sleep(0.02)
        if until is None:
            process.wait()
        seconds = time.perf_counter() - started
        process.send_signal(signal.SIGINT)
    return seconds, _processor_seconds() - used


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _has_a_round(output: pathlib.Path) -> bool:
    return any(path.read_text().count("\n") > 1 for path in output.rglob("metrics.csv"))


def measure(checkouts: dict[str, pathlib.Path], repetitions: int, quick: bool) -> pd.DataFrame:
    """One row per command, checkout and repetition: what, contender, repetition, seconds, processor_seconds."""
    rows = []
    for repetition in range(-1, repetitions):  # the first fills the caches
        for what in ("help", "first round", *(["make run"] if quick else [])):
            for contender, checkout in checkouts.items():
                output = pathlib.Path(tempfile.mkdtemp())
                flags = ("--help",) if what == "help" else (*(SMALL if what == "first round" else QUICK),)
                flags += () if what == "help" else (f"--output_dir={output}",)
                until = (lambda output=output: _has_a_round(output)) if what == "first round" else None
                seconds, processor = _seconds(checkout, flags, until)
                shutil.rmtree(output, ignore_errors=True)
                if repetition >= 0:
                    rows.append((what, contender, repetition, round(seconds, 2), round(processor, 2)))
    return pd.DataFrame(rows, columns=["what", "contender", "repetition", "seconds", "processor_seconds"])


def main() -> None:
    parser = recording.parser(__doc__, 7, "how often each command runs")
    parser.add_argument("--beside", type=pathlib.Path, help="another checkout of this project, to compare with")
    parser.add_argument("--quick", action="store_true", help="measure make run too")
    options = parser.parse_args()
    checkouts = {"ours": recording.ROOT} | ({"before": options.beside.resolve()} if options.beside else {})
    table = measure(checkouts, options.repetitions, options.quick)
    medians = table.groupby(["what", "contender"], sort=False)[["seconds", "processor_seconds"]].median()
    print(medians.to_string(), flush=True)
    recording.write(table, options.output_dir / "start_up.csv")


if __name__ == "__main__":
    main()
