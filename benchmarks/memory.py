"""Resident memory of both processes over a run of many rounds.

    python -m benchmarks.memory --rounds=500 --flagfile=… (any flags of run_experiment.py)

Starts `run_experiment.py` with the given flags and reads, at the rounds named by --at, the resident memory of the
Python process and of TFF's worker from the operating system. Prints one line for each.
"""

import pathlib
import subprocess
import sys
import tempfile
import time

import psutil

ROOT = pathlib.Path(__file__).parent.parent


def main(arguments: list[str]) -> int:
    at = [10, 50, 100, 200, 300, 400, 500]
    for argument in [a for a in arguments if a.startswith("--at=")]:
        arguments.remove(argument)
        at = [int(number) for number in argument.removeprefix("--at=").split(",")]
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "run_experiment.py", *arguments, f"--output_dir={directory}", "--run_name=run"]
        process = psutil.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        metrics = pathlib.Path(directory) / "run" / "metrics.csv"
        print(f"{'round':>6}{'Python (MB)':>14}{'worker (MB)':>14}", flush=True)
        while process.poll() is None:
            done = len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0
            if at and done >= at[0]:
                workers = [child for child in process.children() if child.name().startswith("worker_binary")]
                resident = [process.memory_info().rss, sum(child.memory_info().rss for child in workers)]
                print(f"{done:>6}" + "".join(f"{size / 1e6:>14.0f}" for size in resident), flush=True)
                at = [number for number in at if number > done]
            time.sleep(0.1)
        return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
