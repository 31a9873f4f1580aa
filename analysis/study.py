"""A study: experiments that share a folder, as `make paper` leaves them.

DIR/<experiment>/experiment.json    the experiment's purpose, and its runs
DIR/runs/<run>/                     the run directories; one may belong to several experiments
DIR/verdicts.json                   the verdicts of analysis/claims.py

A folder of runs is a study of one experiment, and so is one run directory. DIR may be a zip file of
`analysis.share_runs`.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from analysis import runs as runs_lib
from tff_personalization.errors import UserError
from tff_personalization.records import places

RUNS = "runs"
ONE_RUN = "run"  # the name of the experiment of a study that is one run directory
RECORD = "experiment.json"
_WORDS = ("question", "paper", "claim", "scale")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run of an experiment.

    Attributes:
        run: its run directory.
        label: its name in the experiment; "" for most.
        overrides: the flags that distinguish it in the experiment.
    """

    run: runs_lib.Run
    label: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.run.config["seed"]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The runs that answer one question.

    Attributes:
        name: the name of its folder, such as "table1".
        title: its title.
        entries: its finished runs, in the planned order.
        unfinished: how many more have begun.
        planned: how many runs it should have; None if that is not recorded.
        question: its question; may be empty.
        paper: the place in the paper, such as "Table 1"; may be empty.
        claim: the paper's claim, such as "C2"; may be empty.
        scale: the size of its runs, such as "small"; may be empty.
        missing: the planned runs that are not finished, each in words.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    unfinished: int = 0
    planned: int | None = None
    question: str = ""
    paper: str = ""
    claim: str = ""
    scale: str = ""
    missing: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[runs_lib.Run, ...]:
        """The finished runs."""
        return tuple(entry.run for entry in self.entries)

    def matching(self, label: str | None = None, **overrides: Any) -> list[Entry]:
        """The entries with this label (None for any) and these overrides."""
        return [
            entry
            for entry in self.entries
            if label in (None, entry.label)
            and all(entry.overrides.get(name) == value for name, value in overrides.items())
        ]


@dataclasses.dataclass(frozen=True)
class Study:
    """All experiments below a folder, in their order.

    Attributes:
        directory: the folder; for a study of one run, the folder of that run.
        experiments: the experiments.
        one_run: the run, if the study is one run directory.
    """

    directory: places.Place
    experiments: tuple[Experiment, ...]
    one_run: runs_lib.Run | None = None

    @functools.cached_property
    def by_name(self) -> dict[str, Experiment]:
        """The experiments by their names."""
        return {experiment.name: experiment for experiment in self.experiments}

    @property
    def runs(self) -> list[runs_lib.Run]:
        """The finished runs of all experiments, each once."""
        return list({run.directory: run for experiment in self.experiments for run in experiment.runs}.values())

    def key(self, run: runs_lib.Run) -> str:
        """A run's key in the study: its folder, relative to the study's."""
        return pathlib.PurePath(str(run.directory)).relative_to(str(self.directory)).as_posix()


def is_study(directory: places.Named) -> bool:
    """Whether a folder or zip file holds experiments."""
    return bool(places.folders_with(places.place(directory), RECORD))


def read(directory: places.Named) -> Study:
    """The study in `directory`. A folder of runs without experiments is one experiment, and so is a run directory.

    Raises:
        UserError: it has no finished run, a record is damaged, or data with the same name has other contents.
    """
    folder = places.place(directory)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a run directory, a study, or a folder of runs")
    if (folder / "config.json").exists():
        run = runs_lib.read(folder)
        _ = run.summary  # explains how to finish an unfinished run
        return Study(places.place(folder.parent), (Experiment(ONE_RUN, "Results", (Entry(run),)),), run)
    records = places.folders_with(folder, RECORD)
    if records:
        read_runs = functools.cache(runs_lib.read)  # several experiments may share a run; its records are read once
        ordered = [_read(found, folder / RUNS, read_runs) for found in records]
        experiments = [experiment for _, experiment in sorted(ordered, key=lambda pair: (pair[0], pair[1].name))]
    else:
        experiments = [_of_runs(folder)]
    if not any(experiment.entries for experiment in experiments):
        raise UserError(f"{folder}: no finished run in it; give a finished run, a study, or a folder of runs")
    return Study(folder, tuple(experiments))


def _read(folder: places.Place, runs: places.Place, read_run: Any) -> tuple[int, Experiment]:
    """An experiment and its position in the order."""
    path = folder / RECORD
    try:
        record = json.loads(places.read_text(path))
        planned = [(str(item["run"]), str(item["label"]), dict(item["overrides"])) for item in record["runs"]]
        words = {name: str(record.get(name) or "") for name in _WORDS}
        order, title = int(record.get("order") or 0), str(record["title"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: damaged ({type(error).__name__}: {error}); repeat the command that made the study"
        ) from None
    folders = [(runs / pathlib.PurePath(name).name, label, overrides) for name, label, overrides in planned]
    begun = [(read_run(folder), *rest) for folder, *rest in folders if (folder / "config.json").exists()]
    entries = tuple(Entry(run, label, overrides) for run, label, overrides in begun if run.finished)
    runs_lib.check_same_data([entry.run for entry in entries])
    finished = {entry.run.directory for entry in entries}
    missing = tuple(
        " ".join(filter(None, [label, *(f"--{name}={value}" for name, value in overrides.items())]))
        for folder, label, overrides in folders
        if folder not in finished
    )
    unfinished = len(begun) - len(entries)
    return order, Experiment(folder.name, title, entries, unfinished, len(planned), **words, missing=missing)


def _of_runs(directory: places.Place) -> Experiment:
    found = [runs_lib.read(folder) for folder in places.folders_with(directory, "config.json")]
    entries = tuple(Entry(run) for run in found if run.finished)
    runs_lib.check_same_data([entry.run for entry in entries])
    name = pathlib.Path(str(directory)).resolve().stem
    return Experiment(name, name, entries, len(found) - len(entries))
