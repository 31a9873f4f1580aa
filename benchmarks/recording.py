"""What the benchmarks' commands share: the choice of what to measure, memory, and where the figures go."""

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


def add_output_dir(parser: argparse.ArgumentParser) -> None:
    """Adds the flag --output_dir, which all commands of `make benchmark` take."""
    parser.add_argument("--output_dir", type=_directory, default="benchmark_results", help="where the figures go")


def _directory(name: str) -> pathlib.Path:
    """A directory to write to, made now: a benchmark is long, and its end is late to learn that it cannot be."""
    path = pathlib.Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{name} cannot be made ({error.strerror}); name another") from None
    return path


def chosen(parser: argparse.ArgumentParser, flag: str, value: str, known: Collection[str]) -> list[str]:
    """The names in `value`, separated by commas; ends the program with a line if one is not among `known`."""
    names = list(dict.fromkeys(value.split(",")))
    for name in names:
        if name not in known:
            parser.error(f"--{flag}: {name!r} is unknown; choose from {', '.join(known)}")
    return names


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each package."""
    return {name: importlib.metadata.version(name) for name in packages}


def words(versions: Mapping[str, str]) -> str:
    """Versions as they stand in a table's cell."""
    return " ".join(f"{name}={version}" for name, version in versions.items())


def answer(lines: Iterable[str]) -> dict | None:
    """The first line that is a JSON object, among whatever else a process has printed; None without one."""
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return None


def peak_mb(pid: int) -> float:
    """The most resident memory that a process has had, in MB (10⁶ bytes); where Linux does not say, what it has now."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        status = ""
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return (1024 * int(peak[1]) if peak else psutil.Process(pid).memory_info().rss) / 1e6


def write(table: pd.DataFrame, path: pathlib.Path) -> None:
    """Writes a table with the number of cores and the commit added to each row, and says where it is."""
    # Imported here: they need TensorFlow, without which the picture is drawn.
    from tff_personalization.execution import worker_binary
    from tff_personalization.records import run_directory

    table.assign(cores=worker_binary.available_cores(), git_commit=run_directory.git_commit()).to_csv(path, index=False)
    print(f"\n{path}", flush=True)
