"""Resident memory of both processes over a run of many rounds.

    python -m benchmarks.memory --at=10,100,500 --output=memory.csv --rounds=500 … (any flags of run_experiment.py)

Starts `run_experiment.py` with the given flags and reads, at the rounds named by --at, the resident memory of the
Python process and of TFF's worker from the operating system. Prints a row for each, and with --output writes them.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import pandas as pd
import psutil

from benchmarks import recording


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", default="10,50,100,200,300,400,500", help="rounds at which to read")
    parser.add_argument("--output", type=pathlib.Path, help="CSV file for the rows")
    options, flags = parser.parse_known_args()
    at = [int(number) for number in options.at.split(",")]
    rows: list[dict[str, int]] = []
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "run_experiment.py", *flags, f"--output_dir={directory}", "--run_name=run"]
        process = psutil.Popen(command, cwd=recording.ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        metrics = pathlib.Path(directory) / "run" / "metrics.csv"
        while process.poll() is None:
            done = len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0
            if at and done >= at[0]:
                workers = [child for child in process.children() if child.name().startswith("worker_binary")]
                resident = {
                    "python_mb": process.memory_info().rss,
                    "worker_mb": sum(child.memory_info().rss for child in workers),
                }
                rows.append({"round": done, **{name: round(size / 1e6) for name, size in resident.items()}})
                print(rows[-1], flush=True)
                at = [number for number in at if number > done]
            time.sleep(0.1)
    if process.returncode:
        print(f"run_experiment.py ended with status {process.returncode}; give it these flags to see why", flush=True)
    elif options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        recording.write(pd.DataFrame(rows), options.output)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
