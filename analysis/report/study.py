"""A study: a folder with one folder an experiment, each with experiment.json and its runs' directories."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from analysis import runs as runs_lib
from tff_personalization.errors import UserError

# The order of the page; others follow by name.
ORDER = (
    *("table1", "terms", "fine_tuning", "centralized", "personalization", "who_gains", "server_optimizers"),
    *("heterogeneity", "shakespeare"),
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The runs that answer one question.

    Attributes:
        name: what the folder's records call it, such as "table1".
        title: in words.
        question: what it asks; may be empty.
        paper: the place in the paper, such as "Table 1"; may be empty.
        claim: the claim of the paper that it is about, such as "C2"; may be empty.
        scale: how large its runs are made, such as "small"; may be empty.
        planned: how many runs belong to it; None if that is not recorded.
        runs: the finished ones, by the names of their folders.
        unfinished: how many more have begun.
    """

    name: str
    title: str
    question: str
    paper: str
    claim: str
    scale: str
    planned: int | None
    runs: tuple[runs_lib.Run, ...]
    unfinished: int


@dataclasses.dataclass(frozen=True)
class Study:
    """All experiments below a folder."""

    directory: pathlib.Path
    experiments: tuple[Experiment, ...]

    @property
    def runs(self) -> list[runs_lib.Run]:
        """The finished runs of all experiments."""
        return [run for experiment in self.experiments for run in experiment.runs]

    def key(self, run: runs_lib.Run) -> str:
        """Where a run is in the study: its folder, seen from the study's."""
        return run.directory.relative_to(self.directory).as_posix()


def read(directory: str | os.PathLike[str]) -> Study:
    """The study in `directory`; a folder of runs without experiments is one experiment.

    Raises:
        UserError: there is no finished run in it, or a record is malformed.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give the folder of a study, or of runs")
    experiments = [_read_experiment(place.parent) for place in sorted(directory.glob("*/experiment.json"))]
    if not experiments:
        experiments = [_read_experiment(directory)]
    if not any(experiment.runs for experiment in experiments):
        raise UserError(f"{directory}: no finished run in it; give the folder of a study, or of runs")
    rank = {name: place for place, name in enumerate(ORDER)}
    experiments.sort(key=lambda experiment: (rank.get(experiment.name, len(rank)), experiment.name))
    return Study(directory, tuple(experiments))


def _read_experiment(directory: pathlib.Path) -> Experiment:
    record = _read_record(directory / "experiment.json")
    found = [runs_lib.read(place.parent) for place in sorted(directory.glob("*/config.json"))]
    finished = tuple(run for run in found if run.finished)
    name = str(record.get("name") or directory.resolve().name)
    texts = {key: str(record.get(key) or "") for key in ("question", "paper", "claim", "scale")}
    planned = record.get("runs")
    return Experiment(
        name=name,
        title=str(record.get("title") or name),
        **texts,
        planned=planned if isinstance(planned, int) else None,
        runs=finished,
        unfinished=len(found) - len(finished),
    )


def _read_record(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); restore the file") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}: not a JSON object; restore the file")
    return record
