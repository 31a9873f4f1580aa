"""Configurations: runs that differ only in their seed, with a short name each and their figures over seeds."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from analysis import compare_methods, compare_runs, costs, run_labels, study
from analysis import runs as runs_lib

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Configuration:
    """Runs that differ only in their seed.

    Attributes:
        label: what distinguishes it in its experiment, such as "FedAvg · E 5".
        runs: one run for each seed, by seed.
    """

    label: str
    runs: tuple[runs_lib.Run, ...]

    @property
    def first(self) -> runs_lib.Run:
        """The run of the lowest seed."""
        return self.runs[0]

    @functools.cached_property
    def first_by_label(self) -> runs_lib.Run:
        """The run of the lowest seed with the name `label`. It is kept, so that its records are read once."""
        config = self.first.config
        named = {"run_name": self.label, "given": {**config.get("given", {}), "run_name": self.label}}
        return dataclasses.replace(self.first, config=config | named)

    def recorded(self, read: Callable[[runs_lib.Run], T]) -> list[T]:
        """What `read` gives for each run that has the record for it, by seed."""
        found = []
        for run in self.runs:
            with contextlib.suppress(runs_lib.NotRecordedError):
                found.append(read(run))
        return found

    def setting(self, flag: str) -> Any:
        """The value of a flag in all of its runs; None if it is not recorded."""
        return run_labels.settings(self.first).get(flag)


def several_seeds(configurations: Sequence[Configuration]) -> bool:
    """Whether a configuration has several seeds."""
    return any(len(configuration.runs) > 1 for configuration in configurations)


def of_experiment(experiment: study.Experiment) -> list[Configuration]:
    """The configurations of an experiment's runs, with the experiment's labels."""
    return of(experiment.runs, [entry.label for entry in experiment.entries])


def of(runs: Sequence[runs_lib.Run], labels: Sequence[str] = ()) -> list[Configuration]:
    """The configurations of some runs.

    Args:
        runs: finished runs.
        labels: the beginning of each one's name; "" or none for names from flags only.

    Returns:
        With labels, in the order of the runs; else sorted by name, with numbers as numbers.

    Raises:
        UserError: two runs have the same settings and the same seed.
    """
    called = dict(zip([run.directory for run in runs], labels, strict=True)) if labels else {}
    groups = compare_runs.by_settings(runs)
    by_label: dict[str, list[tuple[runs_lib.Run, ...]]] = {}
    for group in groups.values():
        members = tuple(run for _, run in sorted(group.items()))
        by_label.setdefault(called.get(members[0].directory, ""), []).append(members)
    found = []
    for label, several in by_label.items():
        shown = _names([members[0] for members in several], label)
        found += [Configuration(name, members) for name, members in zip(shown, several, strict=True)]
    return found if any(by_label) else sorted(found, key=_order)


def per_run(run: runs_lib.Run) -> dict[str, float]:
    """The measures of a run; NaN for missing ones.

    Accuracies are means over test clients after the last round. `chosen_…` are those of the evaluated round that was
    best on validation clients. `worst_tenth` is the mean of the worst tenth of personalized accuracies.
    """
    summary = run.summary
    chosen = summary.get("validation_round") or {}
    target = summary["rounds_to_target"]

    def mean(record: Mapping[str, Any], kind: str) -> Any:
        return record.get(kind, {}).get("mean")

    values = {
        "initial_accuracy": mean(summary, "initial_accuracy"),
        "personalized_accuracy": mean(summary, "personalized_accuracy"),
        "gain": mean(summary, "gain"),
        "share_hurt": summary["share_hurt"],
        "worst_tenth": _worst_tenth(run),
        "rounds_to_target_initial": target["initial"],
        "rounds_to_target_personalized": target["personalized"],
        "chosen_round": chosen.get("round"),
        "chosen_initial_accuracy": mean(chosen, "initial_accuracy"),
        "chosen_personalized_accuracy": mean(chosen, "personalized_accuracy"),
        **costs.of(run),
        "wall_seconds": run.wall_seconds,
    }
    return {name: np.nan if value is None else float(value) for name, value in values.items()}


def over_seeds(configurations: Sequence[Configuration]) -> pd.DataFrame:
    """One row per configuration.

    Returns:
        configuration (its label), seeds (their number), target_accuracy; for each measure of `per_run` the mean over
        the seeds that have it, <measure>_sd (over seeds, NaN for one), <measure>_seeds (how many have it).
    """
    rows = []
    for configuration in configurations:
        measured = pd.DataFrame([per_run(run) for run in configuration.runs])
        row: dict[str, Any] = {"configuration": configuration.label, "seeds": len(configuration.runs)}
        row["target_accuracy"] = configuration.first.summary["rounds_to_target"]["target_accuracy"]
        for name in measured:
            values = measured[name].dropna()
            row |= {name: values.mean(), f"{name}_sd": values.std(ddof=1), f"{name}_seeds": len(values)}
        rows.append(row)
    return pd.DataFrame(rows)


def _worst_tenth(run: runs_lib.Run) -> float | None:
    try:
        return compare_methods.worst_mean(run.client_gains()["personalized"].to_numpy(), run.metric)
    except runs_lib.NotRecordedError:
        return None


def _names(runs: Sequence[runs_lib.Run], label: str) -> list[str]:
    """What distinguishes each run; its name if nothing else does."""
    made = run_labels.differing(runs, label)
    return [name if made.count(name) == 1 else f"{name} · {run.name}" for name, run in zip(made, runs, strict=True)]


def _order(configuration: Configuration) -> list[tuple[int, Any]]:
    """Sorts by the parts of the name, with numbers as numbers."""
    words = configuration.label.replace(" · ", " ").split()
    return [(0, float(word)) if _is_number(word) else (1, word.casefold()) for word in words]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
