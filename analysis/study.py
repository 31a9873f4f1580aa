"""A study: experiments that share a folder, as `make paper` leaves them.

DIR/<experiment>/experiment.json    what it is about, and which runs are its own
DIR/runs/<run>/                     the run directories; one may belong to several experiments
DIR/verdicts.json                   what analysis/claims.py says of them
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from analysis import runs as runs_lib
from tff_personalization.errors import UserError


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run of an experiment.

    Attributes:
        run: its run directory.
        label: what the experiment calls it; "" for most.
        overrides: the flags that set it apart within the experiment.
    """

    run: runs_lib.Run
    label: str
    overrides: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.run.config["seed"]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment: what it asks, and its finished runs.

    Attributes:
        name: that of its folder.
        about: title, paper (table, figure or section), claim, question, scale.
        entries: its finished runs, in the order in which they were planned.
        planned: how many runs it is to have.
    """

    name: str
    about: Mapping[str, str]
    entries: tuple[Entry, ...]
    planned: int

    def select(self, label: str | None = None, **overrides: Any) -> dict[int, runs_lib.Run]:
        """The finished runs with a label and with these overrides, by seed.

        Raises:
            ValueError: several runs of a seed fit.
        """
        found: dict[int, runs_lib.Run] = {}
        for entry in self.entries:
            fits = all(entry.overrides.get(name) == value for name, value in overrides.items())
            if fits and label in (None, entry.label):
                if entry.seed in found:
                    raise ValueError(f"{self.name}: {label!r} {overrides} fits several runs of seed {entry.seed}")
                found[entry.seed] = entry.run
        return found

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of its finished runs, each once."""
        return tuple(dict.fromkeys(entry.label for entry in self.entries))


@dataclasses.dataclass(frozen=True)
class Study:
    """The experiments of a folder, by name, in the order that they have."""

    directory: pathlib.Path
    experiments: Mapping[str, Experiment]


RUNS = "runs"


def is_study(directory: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a study."""
    return any(pathlib.Path(directory).glob("*/experiment.json"))


def read(directory: str | os.PathLike[str]) -> Study:
    """The study in `directory`.

    Raises:
        UserError: it is none, or an experiment.json is damaged.
    """
    directory = pathlib.Path(directory)
    found = []
    for path in sorted(directory.glob("*/experiment.json")):
        try:
            contents = json.loads(path.read_text(encoding="utf-8"))
            planned = [(item["run"], item["label"], dict(item["overrides"])) for item in contents["runs"]]
            about = {name: str(contents[name]) for name in ("title", "paper", "claim", "question", "scale")}
            order = int(contents["order"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: damaged ({type(error).__name__}: {error}); repeat the command that made the study"
            ) from None
        entries = []
        for name, label, overrides in planned:
            place = directory / RUNS / pathlib.PurePath(name).name
            if (place / "summary.json").exists():
                entries.append(Entry(runs_lib.read(place), label, overrides))
        found.append((order, Experiment(path.parent.name, about, tuple(entries), len(planned))))
    if not found:
        raise UserError(f"{directory}: no study (no */experiment.json in it); give the folder that `make paper` wrote")
    return Study(directory, {e.name: e for _, e in sorted(found, key=lambda pair: (pair[0], pair[1].name))})
