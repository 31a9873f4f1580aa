"""Shared parts of the benchmarks' commands: the choice of measurements, memory, and the output files."""

import argparse
import importlib.metadata
import json
import pathlib
import re
from collections.abc import Collection, Iterable, Mapping

import pandas as pd
import psutil

from tff_personalization import startup

startup.quiet([])

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("tensorflow", "tensorflow-federated")


def parser(help_text: str | None, repetitions: int = 0, what: str = "") -> argparse.ArgumentParser:
    """The parser of a command, with the flag --output_dir and, if it has a default, --repetitions of `what`."""
    made = argparse.ArgumentParser(description=help_text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--output_dir", type=_directory, default="benchmark_results", help="where the figures go")
    if repetitions:
        made.add_argument("--repetitions", type=_count, default=repetitions, help=what)
    return made


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return int(text)


def _directory(name: str) -> pathlib.Path:
    """A directory to write to. It is made at once, so that a long benchmark does not fail at its end."""
    path = pathlib.Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{name} cannot be made ({error.strerror}); name another") from None
    return path


def chosen(parser: argparse.ArgumentParser, flag: str, value: str, known: Collection[str]) -> list[str]:
    """The names in `value`, separated by commas. Ends the program with a line if one is not in `known`."""
    names = list(dict.fromkeys(value.split(",")))
    for name in names:
        if name not in known:
            parser.error(f"--{flag}: {name!r} is unknown; choose from {', '.join(known)}")
    return names


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each package."""
    return {name: importlib.metadata.version(name) for name in packages}


def words(versions: Mapping[str, str]) -> str:
    """Versions in the form of a table's cell."""
    return " ".join(f"{name}={version}" for name, version in versions.items())


def answer(lines: Iterable[str]) -> dict | None:
    """The first line of a process's output that is a JSON object; None if there is none."""
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return None


def peak_mb(pid: int) -> float:
    """The peak resident memory of a process, in MB (10⁶ bytes); if Linux does not tell, the present memory."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        status = ""
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return (1024 * int(peak[1]) if peak else psutil.Process(pid).memory_info().rss) / 1e6


def processor_seconds(pid: int | None = None) -> float:
    """The processor time that a process (by default this one) and its children have used."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def write(table: pd.DataFrame, path: pathlib.Path) -> None:
    """Writes a table, with the number of cores and the commit in each row, and prints its path."""
    # Imported here, because they need TensorFlow and the picture does not.
    from tff_personalization.execution import worker_binary
    from tff_personalization.records import run_directory

    table.assign(cores=worker_binary.available_cores(), git_commit=run_directory.git_commit()).to_csv(path, index=False)
    print(f"\n{path}", flush=True)
