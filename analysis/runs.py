"""Reads the runs given to an analysis command."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from tff_personalization.errors import UserError
from tff_personalization.metrics import Metric as Metric
from tff_personalization.records import places
from tff_personalization.records.run_records import NotRecordedError as NotRecordedError
from tff_personalization.records.run_records import Run as Run
from tff_personalization.records.run_records import read as read

# Settings that decide which examples there are, and which test. The same seed and settings give the same data.
_CHOOSING_DATA = (
    *("num_clients", "writer_heterogeneity", "deal_examples_at_random", "data_seed"),
    *("partition", "partition_clients", "partition_alpha", "partition_classes"),
)


def read_all(directories: Iterable[places.Named]) -> list[Run]:
    """The runs in `directories`, in that order; UserError if there are none or one is not a run directory.

    A folder or zip file of runs stands for all of its runs, by name. A directory named "plots" that is not a run is
    ignored: plots of several runs are written beside the runs, where a pattern such as `runs/*` would match them later.
    """
    paths: list[places.Place] = []
    for path in map(places.place, directories):
        if (path / "config.json").exists():
            paths.append(path)
        elif path.name != "plots" or not path.is_dir():
            paths += places.folders_with(path, "config.json") or [path]
    if not paths:
        raise UserError("RUN: no run directory given; give at least one, such as runs/NAME")
    repeated = sorted({str(path) for path in paths if paths.count(path) > 1})
    if repeated:
        raise UserError(f"{repeated[0]}: given twice; give each run directory once")
    return [read(path) for path in paths]


def check_same_data(runs: Sequence[Run]) -> None:
    """Refuses runs whose client data has the same name and other contents, as when a file was changed between them.

    Raises:
        UserError: there are such runs. It names two of them.
    """
    first: dict[tuple[str, ...], Run] = {}
    for run in runs:
        name = str(run.config["flags"].get("client_data", "")).replace("\\", "/").rsplit("/", 1)[-1]
        for kind, contents in _contents(run).items():
            # A seed may split the examples of an archive into parts, or generate them.
            seed = str(run.config["seed"]) if kind == "data_sha256" else ""
            other = first.setdefault((run.config["task"], name, kind, seed, *_of_data(run, kind)), run)
            if _contents(other)[kind] != contents:
                raise UserError(
                    f"{other.directory} and {run.directory}: the contents of their client data {name} differ "
                    f"(SHA-256 {_contents(other)[kind][:12]}… and {contents[:12]}…): give runs on the same data, or "
                    "repeat one"
                )


def _contents(run: Run) -> dict[str, str]:
    """The recorded hashes of a run's client data, by kind."""
    file = run.config.get("client_data_file") or {}
    found = {
        "examples_sha256": run.config.get("examples_sha256"),
        "file": None if run.config.get("examples_sha256") else file.get("sha256"),
        "data_sha256": run.config.get("data_sha256"),
    }
    return {kind: str(value) for kind, value in found.items() if value}


def _of_data(run: Run, kind: str) -> list[str]:
    """For a kind of hash, the settings that intentionally change the data."""
    chosen = run.config["flags"] if kind == "data_sha256" else {}
    return [f"{name}={chosen[name]}" for name in _CHOOSING_DATA if chosen.get(name) is not None]


def evaluated_rounds(run: Run) -> pd.DataFrame:
    """The rows of metrics.csv whose rounds were evaluated; NotRecordedError if there are none."""
    table = run.metrics.dropna(subset=["initial_accuracy", "personalized_accuracy"])
    if table.empty:
        raise NotRecordedError(f"{run.directory / 'metrics.csv'}: no round was evaluated, nothing to draw")
    return table


def final_evaluation(run: Run) -> pd.DataFrame:
    """The rows of evaluations.csv about all test clients, in the last round that has them.

    Raises:
        NotRecordedError: none of them has an accuracy.
        UserError: the run is unfinished.
    """
    _ = run.summary  # an unfinished run has no final evaluation
    rows = run.evaluations[run.evaluations["split"] == "test"].dropna(subset=["accuracy_mean"])
    if rows.empty:
        raise NotRecordedError(f"{run.directory / 'evaluations.csv'}: no accuracy of test clients to draw")
    return rows[rows["round"] == rows["round"].max()]


def stage_switches(run: Run) -> list[tuple[int, str]]:
    """The first round of each stage after the first stage, with the stage's name."""
    rounds, stages = run.metrics["round"], run.metrics["stage"]
    first = (stages != stages.shift()) & (stages.index > 0)
    return list(zip(rounds[first], stages[first], strict=True))


def without_paths(value: Any) -> Any:
    """A record's value, with each path of the machine cut to its last part."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return os.path.basename(value.rstrip("/")) if isinstance(value, str) and os.path.isabs(value) else value


def labels(runs: Sequence[Run]) -> list[str]:
    """The label of each run in a legend or table: its name, or its directory if two runs share a name."""
    names = [run.name for run in runs]
    return [str(run.directory) if names.count(run.name) > 1 else run.name for run in runs]
