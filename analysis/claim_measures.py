"""The measures of a study's claims: for each seed, the values whose mean is an effect."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import compared_runs, study
from analysis import runs as runs_lib
from tff_personalization.errors import UserError


@dataclasses.dataclass(frozen=True)
class Measured:
    """The values of an effect.

    Attributes:
        values: for each seed, one number per unit, indexed by the unit's name; empty if nothing can be compared. A name
            in several seeds is one unit.
        runs: the compared runs.
        missing: what is missing, if nothing can be compared.
        note: a remark to show with the verdict.
        undecided: why the values cannot decide, if so.
    """

    values: list[pd.Series]
    runs: tuple[runs_lib.Run, ...] = ()
    missing: str = ""
    note: str = ""
    undecided: str = ""

    @property
    def seeds(self) -> int:
        """The number of compared seeds."""
        return len(self.values)


Measure = Callable[[study.Experiment, bool], Measured]
MATCH_TOLERANCE = 0.005  # initial accuracies within this difference count as equal
_FED_AVG, _PERSONALIZED = "FedAvg", "Personalized FedAvg"  # labels of runs
NOTHING_CHOSEN = Measured([], missing="This comparison is not made for the rounds that validation clients choose.")


def of_last_round(measure: Callable[..., Measured]) -> Callable[..., Measured]:
    """The `Measure` of a function of an experiment that has no values for the rounds that validation clients choose."""

    @functools.wraps(measure)
    def of_round(experiment: study.Experiment, chosen: bool, **settings: Any) -> Measured:
        return NOTHING_CHOSEN if chosen else measure(experiment, **settings)

    return of_round


def _gains(run: runs_lib.Run, chosen: bool) -> pd.DataFrame:
    return run.client_gains(round_number=compared_runs.chosen_round(run) if chosen else None)


def _by_seed(
    groups: Mapping[str, Mapping[int, runs_lib.Run]], values: Callable[..., pd.Series], chosen: bool = False
) -> Measured:
    """`values` for each seed that all groups have, from their runs."""
    for name, group in groups.items():
        if not group:
            return Measured([], missing=f"No finished run of {name}.")
    seeds = sorted(set.intersection(*(set(group) for group in groups.values())))
    if not seeds:
        return Measured([], missing=f"No seed with all of {' and '.join(groups)}.")
    runs = [[group[seed] for group in groups.values()] for seed in seeds]
    if chosen and any(compared_runs.chosen_round(run) is None for of_seed in runs for run in of_seed):
        return NOTHING_CHOSEN
    incomplete = set().union(*groups.values()) - set(seeds)
    lacking = [_left_out(sorted(incomplete - set(group)), name) for name, group in groups.items()]
    found = [values(*of_seed) for of_seed in runs]
    for of_seed, values_of_seed in zip(runs, found, strict=True):
        if values_of_seed.empty:
            compared = " and ".join(str(run.directory) for run in of_seed)
            raise UserError(f"{compared}: no test client in common; give runs with the same data, split and seed")
    return Measured(found, tuple(run for of_seed in runs for run in of_seed), note=" ".join(filter(None, lacking)))


def _left_out(seeds: Sequence[int], name: str) -> str:
    """A sentence that names the seeds without a run; "" if there are none."""
    if not seeds:
        return ""
    *first, last = map(str, seeds)
    said = f"Seeds {', '.join(first)} and {last} are" if first else f"Seed {last} is"
    return f"{said} left out: no finished run of {name}."


def _by_client(ours: pd.Series, theirs: pd.Series) -> pd.Series:
    """Our value minus theirs, for each common client."""
    return (ours - theirs).dropna()


def _name(selection: Mapping[str, Any]) -> str:
    return " ".join(str(value) if name == "label" else f"--{name}={value}" for name, value in selection.items())


def paired(
    experiment: study.Experiment, chosen: bool, *, ours: Mapping[str, Any], theirs: Mapping[str, Any], metric: str
) -> Measured:
    """Per client: a metric (initial, personalized, gain) in our runs minus that in theirs, in the same seed."""

    def difference(a: runs_lib.Run, b: runs_lib.Run) -> pd.Series:
        return _by_client(_gains(a, chosen)[metric], _gains(b, chosen)[metric])

    groups = {_name(selection): compared_runs.selected(experiment, **selection) for selection in (ours, theirs)}
    return _by_seed(groups, difference, chosen)


def gain(experiment: study.Experiment, chosen: bool) -> Measured:
    """Per client: the gain."""
    groups = {_FED_AVG: compared_runs.selected(experiment, _FED_AVG)}
    return _by_seed(groups, lambda run: _gains(run, chosen)["gain"], chosen)


@of_last_round
def strategies(experiment: study.Experiment, *, label: str, first: str, second: str, metric: str) -> Measured:
    """Per client: a metric (personalized, hurt) under one strategy minus that under another, in the last round."""

    def difference(run: runs_lib.Run) -> pd.Series:
        a, b = (run.client_gains(strategy) for strategy in (first, second))
        if metric == "hurt":
            a, b = (table.assign(hurt=(table["gain"] < 0).astype(float)) for table in (a, b))
        return _by_client(a[metric], b[metric])

    return _by_seed({label: compared_runs.selected(experiment, label)}, difference)


def most_gain(experiment: study.Experiment, chosen: bool) -> Measured:
    """Per client: ½ for a client that gains, −½ for one that does not."""
    groups = {_PERSONALIZED: compared_runs.selected(experiment, _PERSONALIZED)}
    return _by_seed(groups, lambda run: (_gains(run, chosen)["gain"] > 0) - 0.5, chosen)


def more_examples(experiment: study.Experiment, chosen: bool) -> Measured:
    """Per client: twice the gain minus the mean gain, with the sign reversed for the half with fewer train examples.

    Ties are ordered by name. The mean of these values is the mean gain of one half minus that of the other. Resamples
    with unequal halves vary no more than the gains do.
    """

    def signed(run: runs_lib.Run) -> pd.Series:
        table = _gains(run, chosen).sort_index().sort_values("train_examples", kind="stable")
        half = len(table) // 2
        few, many = table["gain"].iloc[:half], table["gain"].iloc[len(table) - half :]
        mean = pd.concat([few, many]).mean()
        return 2 * pd.concat([mean - few, many - mean])

    return _by_seed({_PERSONALIZED: compared_runs.selected(experiment, _PERSONALIZED)}, signed, chosen)


@of_last_round
def after_as_many_examples(experiment: study.Experiment, *, metric: str) -> Measured:
    """Per client: a metric in Personalized FedAvg's last round minus that in a round of FedAvg.

    That is FedAvg's first evaluated round after at least the same number of examples."""
    groups = {name: compared_runs.selected(experiment, name) for name in (_PERSONALIZED, _FED_AVG)}
    missing: dict[int, str] = {}
    matched: dict[int, int] = {}
    more: list[float] = []
    for seed in sorted(groups[_PERSONALIZED].keys() & groups[_FED_AVG].keys()):
        run, reference = groups[_FED_AVG][seed], groups[_PERSONALIZED][seed]
        number = compared_runs.round_of_as_many_examples(run, reference)
        if number is None:
            missing[seed] = f"{run.name}: no evaluated round after the same number of examples."
        elif not compared_runs.has_round(run, number):
            missing[seed] = f"{run.name}: test clients were not evaluated in round {number}."
        else:
            matched[seed] = number
            visited = run.metrics.loc[run.metrics["round"] <= number, "examples"].sum()
            more.append(visited / reference.metrics["examples"].sum() - 1)

    def difference(a: runs_lib.Run, b: runs_lib.Run) -> pd.Series:
        return _by_client(a.client_gains()[metric], b.client_gains(None, matched[b.config["seed"]])[metric])

    measured = _without(missing, groups, difference)
    note = f"{_FED_AVG} has visited up to {max(more, default=0):.0%} more examples."
    return dataclasses.replace(measured, note=f"{note} {measured.note}".strip()) if measured.values else measured


@of_last_round
def at_matched_initial(experiment: study.Experiment, *, other: str, in_every_round: bool = False) -> Measured:
    """Per client: personalized accuracy of FedAvg minus that of the other run at the same initial accuracy.

    FedAvg's is that of its last round. The other's is interpolated linearly between two of its `matched_rounds`, so
    that the mean initial accuracies over test clients agree. A seed without matched rounds, or without test clients
    evaluated in them, is left out and named with the verdict.
    """
    groups = {name: compared_runs.selected(experiment, name) for name in (_FED_AVG, other)}
    judged: dict[int, list[int]] = {}
    unmatched: dict[int, str] = {}
    for seed in sorted(groups[_FED_AVG].keys() & groups[other].keys()):
        run = groups[other][seed]
        rounds = compared_runs.matched_rounds(run, groups[_FED_AVG][seed], in_every_round)
        judged[seed] = [one for one in rounds if compared_runs.has_round(run, one)]
        if not rounds:
            unmatched[seed] = f"{run.name}: no evaluated rounds on both sides of {_FED_AVG}'s initial accuracy."
        elif len(judged[seed]) < 2:
            unmatched[seed] = f"{run.name}: test clients were not evaluated in the matched rounds."
    left: list[float] = []

    def difference(a: runs_lib.Run, b: runs_lib.Run) -> pd.Series:
        ours = a.client_gains()
        tables = [b.client_gains(None, one) for one in judged[b.config["seed"]]]
        between = _between(tables, ours["initial"].mean())
        left.append(ours["initial"].mean() - between["initial"].mean())
        return _by_client(ours["personalized"], between["personalized"])

    measured = _without(unmatched, groups, difference)
    if not measured.values:
        return measured
    worst = max(left, key=abs)
    if abs(worst) > MATCH_TOLERANCE:
        said = f"Initial accuracies of test clients still differ by {worst:+.3f}. {measured.note}"
        return dataclasses.replace(measured, undecided=said.strip(), note="")
    said = f"Initial accuracies of test clients differ by {abs(worst):.3f} at most. {measured.note}"
    return dataclasses.replace(measured, note=said.strip())


def _between(judged: Sequence[pd.DataFrame], initial: float) -> pd.DataFrame:
    """Interpolates the tables to this mean initial accuracy.

    It takes the first two tables with the accuracy between their means, or else the two with the nearest means."""
    means = [table["initial"].mean() for table in judged]
    pairs = list(itertools.pairwise(range(len(judged))))
    outside = [max(min(means[a], means[b]) - initial, initial - max(means[a], means[b]), 0.0) for a, b in pairs]
    a, b = pairs[int(np.argmin(outside))]
    way = means[b] - means[a]
    share = np.clip((initial - means[a]) / way, 0, 1) if way else 0.0
    return (1 - share) * judged[a] + share * judged[b]


def _without(
    left_out: Mapping[int, str], groups: Mapping[str, Mapping[int, runs_lib.Run]], values: Callable[..., pd.Series]
) -> Measured:
    """`_by_seed` without some seeds, with a reason for each."""
    kept = {name: {s: run for s, run in group.items() if s not in left_out} for name, group in groups.items()}
    if left_out and not all(kept.values()):
        return Measured([], missing=next(iter(left_out.values())))
    measured = _by_seed(kept, values)
    return dataclasses.replace(measured, note=" ".join(filter(None, (measured.note, *left_out.values()))))


@of_last_round
def as_chosen(experiment: study.Experiment, *, theirs: str) -> Measured:
    """Per client: FedAvg's personalized accuracy minus theirs, each with the choice of validation clients."""
    groups = {name: compared_runs.selected(experiment, name) for name in (_FED_AVG, theirs)}
    for group in groups.values():
        for run in group.values():
            if run.chosen_clients is None:
                return Measured([], missing=f"{run.name}: nothing was chosen on validation clients.")

    def difference(a: runs_lib.Run, b: runs_lib.Run) -> pd.Series:
        accuracies = []
        for run in (a, b):
            table = run.chosen_clients
            assert table is not None  # checked above
            judged = table[table["test_examples"] > 0]
            accuracies.append(judged[judged["epoch"] == judged["epoch"].max()].set_index("client")["accuracy"])
        return _by_client(*accuracies)

    return _by_seed(groups, difference)


@of_last_round
def chosen_by_initial(experiment: study.Experiment) -> Measured:
    """Per client: personalized accuracy of one chosen model minus that of another.

    Validation clients choose both among the last models of a seed's runs: by personalized and by initial accuracy."""
    by_seed: dict[int, list[runs_lib.Run]] = {}
    for entry in experiment.entries:
        if entry.run.summary.get("choice"):
            by_seed.setdefault(entry.seed, []).append(entry.run)
    values, compared = [], []
    for runs in by_seed.values():
        if len(runs) < 2:
            continue
        judged = pd.DataFrame([compared_runs.on_validation(run) for run in runs]).reset_index(drop=True)
        best = {name: runs[int(judged[name].idxmax())] for name in ("initial", "personalized")}
        accuracies = {name: run.client_gains()["personalized"] for name, run in best.items()}
        values.append(_by_client(accuracies["personalized"], accuracies["initial"]))
        compared += runs
    return Measured(values, tuple(compared), "No two runs of a seed with validation clients.")
