"""What the claims of a study are measured by: for each seed, the values whose mean is an effect."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis import runs as runs_lib
from analysis import study


@dataclasses.dataclass(frozen=True)
class Measured:
    """The values of an effect.

    Attributes:
        values: for each seed, one number per unit; empty if there is nothing to compare.
        runs: what was compared.
        missing: what is missing, if there is nothing.
        over_seeds: whether each value is over all seeds already, so that `values` is one array.
    """

    values: list[np.ndarray]
    runs: tuple[runs_lib.Run, ...] = ()
    missing: str = ""
    over_seeds: bool = False

    @property
    def seeds(self) -> int:
        """How many seeds were compared."""
        return len({run.config["seed"] for run in self.runs}) if self.over_seeds else len(self.values)


Measure = Callable[[study.Experiment, bool], Measured]
NOTHING_CHOSEN = Measured([], missing="This comparison is not made for the rounds that validation clients choose.")


def chosen_round(run: runs_lib.Run) -> int | None:
    """The evaluated round that was best on validation clients; None without validation clients."""
    return (run.summary.get("validation_round") or {}).get("round")


def has_round(run: runs_lib.Run, round_number: int) -> bool:
    """Whether the test clients were judged with the model of a round."""
    return round_number == run.summary["rounds"] or (run.by_round["round"] == round_number).any()


def validation_curve(run: runs_lib.Run) -> pd.DataFrame:
    """Initial and personalized accuracy on validation clients by evaluated round: columns initial, personalized."""
    judged = run.evaluations[
        (run.evaluations["split"] == "validation") & (run.evaluations["strategy"] == run.summary["strategy"])
    ]
    by_epoch = judged.pivot(index="round", columns="epoch", values="accuracy_mean")
    epochs = [0, run.summary["personalization_epochs"]]
    return by_epoch.reindex(columns=epochs).set_axis(["initial", "personalized"], axis=1)


def matched_round(run: runs_lib.Run, reference: runs_lib.Run) -> int | None:
    """The evaluated round in which `run`'s initial accuracy on validation clients is nearest to `reference`'s last.

    None if one of them has no validation clients.
    """
    ours, theirs = validation_curve(run)["initial"].dropna(), validation_curve(reference)["initial"].dropna()
    if ours.empty or theirs.empty:
        return None
    return int((ours - theirs.iloc[-1]).abs().idxmin())


def _gains(run: runs_lib.Run, chosen: bool, strategy: str | None = None) -> pd.DataFrame:
    return run.client_gains(strategy, chosen_round(run) if chosen else None)


def _by_seed(
    groups: Mapping[str, Mapping[int, runs_lib.Run]], values: Callable[..., np.ndarray], chosen: bool
) -> Measured:
    """`values` of the runs of each seed that all groups have."""
    for name, group in groups.items():
        if not group:
            return Measured([], missing=f"No finished run of {name}.")
    seeds = sorted(set.intersection(*(set(group) for group in groups.values())))
    if not seeds:
        return Measured([], missing=f"No seed with all of {' and '.join(groups)}.")
    runs = [[group[seed] for group in groups.values()] for seed in seeds]
    if chosen and any(chosen_round(run) is None for of_seed in runs for run in of_seed):
        return NOTHING_CHOSEN
    return Measured([values(*of_seed) for of_seed in runs], tuple(run for of_seed in runs for run in of_seed))


def _by_client(ours: pd.Series, theirs: pd.Series) -> np.ndarray:
    """Ours less theirs, for each client that both have."""
    return (ours - theirs).dropna().to_numpy()


def _name(selection: Mapping[str, Any]) -> str:
    return " ".join(str(value) for value in selection.values())


def paired(ours: Mapping[str, Any], theirs: Mapping[str, Any], metric: str) -> Measure:
    """Client by client: a metric (initial, personalized, gain) in our runs less in theirs of the same seed."""

    def measure(experiment, chosen):
        def difference(a, b):
            return _by_client(_gains(a, chosen)[metric], _gains(b, chosen)[metric])

        groups = {_name(selection): experiment.select(**selection) for selection in (ours, theirs)}
        return _by_seed(groups, difference, chosen)

    return measure


def gain(selection: Mapping[str, Any]) -> Measure:
    """Client by client: the gain."""

    def measure(experiment, chosen):
        groups = {_name(selection): experiment.select(**selection)}
        return _by_seed(groups, lambda run: _gains(run, chosen)["gain"].to_numpy(), chosen)

    return measure


def strategies(label: str, first: str, second: str, metric: str) -> Measure:
    """Client by client: a metric (personalized, hurt) under one strategy less under another, in the last round."""

    def measure(experiment, chosen):
        if chosen:
            return NOTHING_CHOSEN

        def difference(run):
            a, b = (run.client_gains(strategy) for strategy in (first, second))
            if metric == "hurt":
                a, b = (table.assign(hurt=(table["gain"] < 0).astype(float)) for table in (a, b))
            return _by_client(a[metric], b[metric])

        return _by_seed({label: experiment.select(label)}, difference, chosen)

    return measure


def most_gain(experiment: study.Experiment, chosen: bool) -> Measured:
    """Client by client: ½ for one that gains, −½ for one that does not."""
    groups = {"Personalized FedAvg": experiment.select("Personalized FedAvg")}
    return _by_seed(groups, lambda run: (_gains(run, chosen)["gain"] > 0).to_numpy() - 0.5, chosen)


def more_examples(experiment: study.Experiment, chosen: bool) -> Measured:
    """Client by client: twice the gain, its sign turned for the half with fewer train examples; ties by name.

    With halves of the same size the mean is the mean gain of the one half less that of the other.
    """

    def signed(run):
        table = _gains(run, chosen).sort_index().sort_values("train_examples", kind="stable")
        half = len(table) // 2
        return 2 * np.concatenate([-table["gain"].to_numpy()[:half], table["gain"].to_numpy()[len(table) - half :]])

    return _by_seed({"Personalized FedAvg": experiment.select("Personalized FedAvg")}, signed, chosen)


def at_matched_initial(reference: str, other: str) -> Measure:
    """Client by client: personalized accuracy in the reference's last round less in the other's matched round."""

    def measure(experiment, chosen):
        if chosen:
            return NOTHING_CHOSEN
        groups = {name: experiment.select(name) for name in (reference, other)}
        for seed, run in groups[other].items():
            theirs = groups[reference].get(seed)
            matched = None if theirs is None else matched_round(run, theirs)
            if theirs is not None and (matched is None or not has_round(run, matched)):
                return Measured([], missing=f"{run.name}: test clients were not judged in the matched round.")

        def difference(a, b):
            matched = b.client_gains(None, matched_round(b, a))
            return _by_client(a.client_gains()["personalized"], matched["personalized"])

        return _by_seed(groups, difference, chosen)

    return measure


def as_chosen(ours: str, theirs: str) -> Measure:
    """Seed by seed: mean personalized accuracy, ours less theirs, with what validation clients choose."""

    def measure(experiment, chosen):
        if chosen:
            return NOTHING_CHOSEN
        groups = {name: experiment.select(name) for name in (ours, theirs)}
        for group in groups.values():
            for run in group.values():
                if not run.summary.get("choice"):
                    return Measured([], missing=f"{run.name}: nothing was chosen on validation clients.")

        def difference(a, b):
            means = [run.summary["choice"]["personalized_accuracy"]["mean"] for run in (a, b)]
            return np.array([means[0] - means[1]])

        return _by_seed(groups, difference, chosen)

    return measure


def chosen_by_initial(experiment: study.Experiment, chosen: bool) -> Measured:
    """Client by client: personalized accuracy of the experiment's model that is best on validation clients by
    personalized accuracy less that of the one best by initial accuracy, of the runs of a seed in their last round."""
    if chosen:
        return NOTHING_CHOSEN
    by_seed: dict[int, list[runs_lib.Run]] = {}
    for entry in experiment.entries:
        if not validation_curve(entry.run).dropna().empty:
            by_seed.setdefault(entry.seed, []).append(entry.run)
    values, compared = [], []
    for runs in by_seed.values():
        if len(runs) < 2:
            continue
        last = pd.DataFrame([validation_curve(run).dropna().iloc[-1] for run in runs]).reset_index(drop=True)
        best = {name: runs[int(last[name].idxmax())] for name in ("initial", "personalized")}
        accuracies = {name: run.client_gains()["personalized"] for name, run in best.items()}
        values.append(_by_client(accuracies["personalized"], accuracies["initial"]))
        compared += runs
    return Measured(values, tuple(compared), "No two runs of a seed with validation clients.")


def spread_over_seeds(experiment: study.Experiment, chosen: bool) -> Measured:
    """Setting by setting (cohort and E): standard deviation over seeds of initial less of personalized accuracy."""
    table = _means(experiment, chosen)
    if chosen and table.empty:
        return NOTHING_CHOSEN
    counts = table.groupby(["cohort", "epochs"])["seed"].count() if len(table) else pd.Series(dtype=int)
    if not (counts > 1).any():
        return Measured([], missing="No setting with two seeds.")
    spread = table.groupby(["cohort", "epochs"])[["initial", "personalized"]].std(ddof=1).dropna()
    runs = tuple(entry.run for entry in experiment.entries)
    return Measured([(spread["initial"] - spread["personalized"]).to_numpy()], runs, over_seeds=True)


def _means(experiment: study.Experiment, chosen: bool) -> pd.DataFrame:
    rows = []
    for entry in experiment.entries:
        record = entry.run.summary.get("validation_round") if chosen else entry.run.summary
        if record:
            means = {name: record[f"{name}_accuracy"]["mean"] for name in ("initial", "personalized")}
            of = entry.overrides
            rows.append({"cohort": of["clients_per_round"], "epochs": of["local_epochs"], "seed": entry.seed, **means})
    return pd.DataFrame(rows)


def more_local_epochs(experiment: study.Experiment, chosen: bool) -> Measured:
    """Client by client, in the largest cohort: personalized accuracy, the largest E up to 10 less the smallest."""
    tried = [(entry.overrides["clients_per_round"], entry.overrides["local_epochs"]) for entry in experiment.entries]
    cohort = max((cohort for cohort, _ in tried), default=0)
    epochs = sorted({epochs for of, epochs in tried if of == cohort and epochs <= 10})
    if len(epochs) < 2:
        return Measured([], missing="No two E up to 10.")
    most, least = ({"clients_per_round": cohort, "local_epochs": e} for e in (epochs[-1], epochs[0]))
    return paired(most, least, "personalized")(experiment, chosen)


def rounds_saved(experiment: study.Experiment, chosen: bool) -> Measured:
    """Run by run: rounds to the target, initial less personalized, over all rounds; never reached counts as all."""
    if chosen:
        return NOTHING_CHOSEN
    by_seed: dict[int, list[float]] = {}
    for entry in experiment.entries:
        reached, rounds = entry.run.summary["rounds_to_target"], entry.run.summary["rounds"]
        initial, personalized = (reached[kind] or rounds for kind in ("initial", "personalized"))
        by_seed.setdefault(entry.seed, []).append((initial - personalized) / rounds)
    runs = tuple(entry.run for entry in experiment.entries)
    return Measured([np.array(values) for values in by_seed.values()], runs, "No finished run.")


def share_of_fomaml(experiment: study.Experiment, chosen: bool) -> Measured:
    """Round by round: the share of FOMAML's terms in a cohort's update, with the largest E less with the smallest."""
    if chosen:
        return NOTHING_CHOSEN
    shares: dict[int, dict[int, pd.Series]] = {}
    compared = []
    for entry in experiment.entries:
        if entry.label == "FedAvg" and (entry.run.directory / "decomposition.csv").exists():
            table = entry.run.decomposition
            first = table[(table["level"] == "cohort") & (table["part"] == 0)].set_index("round")["share"]
            shares.setdefault(entry.seed, {})[entry.overrides["local_epochs"]] = 1 - first
            compared.append(entry.run)
    values = []
    for by_epochs in shares.values():
        if len(by_epochs) > 1:
            difference = (by_epochs[max(by_epochs)] - by_epochs[min(by_epochs)]).dropna()
            values.append(difference.to_numpy())
    return Measured(values, tuple(compared), "No two E whose updates were taken apart.")
