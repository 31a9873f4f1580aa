"""Coverage-guided fuzzing of every reader of foreign bytes: every refusal must be a UserError.

    .venv/bin/pip install --no-deps --target=/tmp/atheris atheris==3.0.0      # once; nothing else needs it
    PYTHONPATH=/tmp/atheris python -m tests.stress.fuzz npz --runs=1000000 --findings=DIR
    PYTHONPATH=/tmp/atheris python -m tests.stress.fuzz --all --runs=1000000 --output=docs/reliability/fuzz.csv

Atheris makes bytes for a reader of `TARGETS`, guided by the project's branches that they reach. It begins with valid
input. Any other exception than a UserError (or one that the program turns into one line) is written to DIR and ends the
search. With --all every reader has its turn, in its own process, and a row: executions, found or not. A search with
--corpus keeps its interesting inputs there, and the next one starts from them.

For speed, inputs are short, files are in memory (/dev/shm), and nothing is put into the cache of client data.
"""

import argparse
import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator

import pandas as pd

from tests.stress.fuzz_targets import TARGETS

_MODULE = "tests.stress.fuzz"
_MOST_BYTES = 20_000
_INTERRUPTED = (72, 130)  # libFuzzer's and Atheris' exit status; with the second, executions are those of the last line
_ROOMS = ("tasks", "records", "sweeps", "draw", "experiment", "settings", "optimizers", "schedules", "plugins")
_GUIDING = [*(f"tff_personalization.{room}" for room in _ROOMS), "tomllib"]


def search(name: str, runs: int, seconds: int, findings: pathlib.Path, corpus: pathlib.Path | None = None) -> None:
    """Fuzzes one reader; the process ends with it."""
    import atheris
    from absl import logging

    logging.set_verbosity(logging.FATAL)
    place = pathlib.Path(
        tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None)
    )
    tempfile.tempdir = str(place)
    (place / "seeds").mkdir()
    # Modules that are imported here guide the search by their branches; some are imported when a reader is called.
    with atheris.instrument_imports(include=_GUIDING):
        from tff_personalization import errors

        read, seeds = TARGETS[name].reader(place), TARGETS[name].seeds(place / "seeds")
        for content in seeds:
            with contextlib.suppress(errors.UserError):
                read(content)
    prefix = re.sub(r"\W+", "_", name)
    kept = (corpus or place / "corpus") / prefix
    kept.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds):
        (kept / f"seed-{number}").write_bytes(content)

    def once(content: bytes) -> None:
        try:
            read(content)
        except errors.UserError as error:
            if "\n" in str(error):
                raise AssertionError("a message of several lines") from error

    findings.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}"] if seconds else []
    bounds = [f"-runs={runs}", f"-max_len={_MOST_BYTES}", "-timeout=300", "-rss_limit_mb=4000", "-print_final_stats=1"]
    artifacts = f"-artifact_prefix={findings}/{prefix}-"
    atheris.Setup(["fuzz", str(kept), *bounds, artifacts, *limits], once)
    atheris.Fuzz()


def executions(said: str) -> int:
    """How often a reader was called, by what libFuzzer says at its end or, where it was stopped, last."""
    final = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said)
    return int(final[-1]) if final else max((int(number) for number in re.findall(r"^#(\d+)\s", said, re.M)), default=0)


def search_all(names: Iterable[str], flags: Iterable[str], findings: pathlib.Path) -> Iterator[dict]:
    """Fuzzes readers one after the other, each in a process of its own with flags of this module; a row for each.

    A search writes its progress to a log among the findings. To end it early, interrupt its process.
    """
    findings.mkdir(parents=True, exist_ok=True)
    for name in names:
        started = time.monotonic()
        command = [sys.executable, "-m", _MODULE, name, *flags]
        log = findings / f"{name}.log"
        with log.open("w") as said:
            status = subprocess.run(command, stdout=said, stderr=said, check=False).returncode
        text = log.read_text(errors="replace")
        if status not in (0, *_INTERRUPTED):
            print(text[-3000:], file=sys.stderr)
        yield {
            "reader": name,
            "executions": executions(text),
            "findings": int(status not in (0, *_INTERRUPTED)),
            "seconds": round(time.monotonic() - started),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", nargs="*", choices=[*TARGETS, []], help="one of them")
    parser.add_argument("--all", action="store_true", help="one after the other, or those that are named")
    parser.add_argument("--runs", type=int, default=-1, help="executions; -1: no limit")
    parser.add_argument("--seconds", type=int, default=0, help="of each search; 0: no limit")
    parser.add_argument(
        "--findings", type=pathlib.Path, default=pathlib.Path("findings"), help="where they are written"
    )
    parser.add_argument("--output", type=pathlib.Path, help="CSV file for the rows of --all")
    parser.add_argument("--corpus", type=pathlib.Path, help="where what is worth keeping is kept; default: nowhere")
    options = parser.parse_args()
    corpus, findings = options.corpus and options.corpus.absolute(), options.findings.absolute()
    if not options.all:
        search(options.reader[0], options.runs, options.seconds, findings, corpus)
        return
    flags = [f"--runs={options.runs}", f"--seconds={options.seconds}", f"--findings={findings}"]
    rows = []
    flags += [f"--corpus={corpus}"] if corpus else []
    for row in search_all(options.reader or TARGETS, flags, findings):
        rows.append(row)
        print(row, flush=True)
    if options.output:
        from benchmarks import recording

        recording.write(pd.DataFrame(rows), options.output)
    sys.exit(int(any(row["findings"] for row in rows)))


if __name__ == "__main__":
    main()
