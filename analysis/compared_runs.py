"""Chooses the runs of an experiment to compare, and their rounds: by validation clients, and by numbers of examples."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import run_labels, study
from analysis import runs as runs_lib

_MOST_NAMED = 4  # runs that have not converged
CONVERGED_WITHIN = 0.005  # largest difference of the mean personalized accuracies of two fifths of the rounds


def chosen_round(run: runs_lib.Run) -> int | None:
    """The evaluated round that was best on validation clients; None without validation clients."""
    return (run.summary.get("validation_round") or {}).get("round")


def has_round(run: runs_lib.Run, round_number: int) -> bool:
    """Whether the test clients were evaluated with the model of a round."""
    return round_number == run.summary["rounds"] or (run.by_round["round"] == round_number).any()


def validation_curve(run: runs_lib.Run) -> pd.DataFrame:
    """Initial and personalized accuracy on validation clients by evaluated round: columns initial, personalized."""
    judged = run.evaluations[
        (run.evaluations["split"] == "validation") & (run.evaluations["strategy"] == run.summary["strategy"])
    ]
    by_epoch = judged.pivot(index="round", columns="epoch", values="accuracy_mean")
    epochs = [0, run.summary["personalization_epochs"]]
    return by_epoch.reindex(columns=epochs).set_axis(["initial", "personalized"], axis=1)


def selected(experiment: study.Experiment, label: str | None = None, **overrides: Any) -> dict[int, runs_lib.Run]:
    """The finished runs with a label and overrides, by seed.

    If a seed has several, it takes the run whose last model has the best personalized accuracy on validation clients;
    the first of equal ones.
    """
    found: dict[int, list[runs_lib.Run]] = {}
    for entry in experiment.matching(label, **overrides):
        found.setdefault(entry.seed, []).append(entry.run)

    def goodness(run: runs_lib.Run) -> float:
        return run.metric.gain(0, on_validation(run)["personalized"])

    return {seed: runs[0] if len(runs) == 1 else max(runs, key=goodness) for seed, runs in found.items()}


def still_changing(runs: Sequence[runs_lib.Run]) -> str:
    """A sentence that names the runs that have not converged and change most; empty if none is known.

    The mean personalized accuracy of validation clients in the last fifth of the rounds is compared with that in the
    fifth before. A run has converged if the two differ by at most `CONVERGED_WITHIN`.
    """
    changes = {label: _late_change(run) for label, run in zip(run_labels.of(runs), runs, strict=True)}
    changing = {label: change for label, change in changes.items() if abs(change) > CONVERGED_WITHIN}
    most = sorted(changing, key=lambda label: -abs(changing[label]))[:_MOST_NAMED]
    named = ", ".join(f"{label} ({changing[label]:+.3f})" for label in most)
    more = f" and {len(changing) - len(most)} more" if len(changing) > len(most) else ""
    return f"Still changing in the last two fifths of the rounds: {named}{more}." if changing else ""


def _late_change(run: runs_lib.Run) -> float:
    curve, rounds = validation_curve(run)["personalized"].dropna(), run.summary["rounds"]
    fifths = [curve[(curve.index > share * rounds) & (curve.index <= (share + 0.2) * rounds)] for share in (0.6, 0.8)]
    return 0.0 if any(fifth.empty for fifth in fifths) else float(fifths[1].mean() - fifths[0].mean())


def matched_rounds(run: runs_lib.Run, reference: runs_lib.Run, in_every_round: bool = False) -> list[int]:
    """The evaluated rounds around the point at which `run` first reaches the reference's last initial accuracy.

    They are the rounds before and after that point, by validation clients, and one more on each side, because test
    clients reach it at another point.

    Empty if `run` is never on both sides of it, if one of the runs has no validation clients, or if the reference's
    last round was not evaluated. With `in_every_round`, they are all evaluated rounds.
    """
    if in_every_round:
        return list(map(int, validation_curve(run).index))
    ours, theirs = validation_curve(run)["initial"].dropna(), validation_curve(reference)["initial"].dropna()
    if theirs.empty or theirs.index[-1] != reference.summary["rounds"]:
        return []
    below = (ours <= theirs.iloc[-1]).to_numpy()
    crossings = np.flatnonzero(below[:-1] & ~below[1:])
    if not len(crossings):
        return []
    first = crossings[0]
    return [int(number) for number in ours.index[max(0, first - 1) : first + 3]]


def round_of_as_many_examples(run: runs_lib.Run, reference: runs_lib.Run) -> int | None:
    """The first evaluated round after which `run` has at least the visits of all of the reference's rounds.

    None if there is none, or if it has no validation clients.
    """
    visited = run.metrics.set_index("round")["examples"].cumsum()
    rounds = validation_curve(run).index
    enough = visited[visited >= reference.metrics["examples"].sum()].index
    return next((int(number) for number in rounds if number in enough), None)


def on_validation(run: runs_lib.Run) -> pd.Series:
    """The last model's mean initial and personalized accuracy on all validation clients, with the flags' settings.

    If the flags' learning rate is none of those that were tried, these are the figures of the first one that was.
    """
    judged = run.choice[run.choice["strategy"] == run.summary["strategy"]]
    given = run_labels.settings(run).get("personalization_learning_rate")
    with_flags = judged[judged["learning_rate"] == given]
    by_epoch = (judged if with_flags.empty else with_flags).drop_duplicates("epoch").set_index("epoch")["accuracy_mean"]
    epochs = [0, run.summary["personalization_epochs"]]
    return by_epoch.reindex(epochs).set_axis(["initial", "personalized"])
