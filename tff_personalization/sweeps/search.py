"""The [search] of a sweep: validation clients choose flags, such as learning rates, for each of its [[runs]].

    [search]
    client_learning_rate = [0.01, 0.03, 0.1]     # the candidates are all combinations of these values
    server_learning_rate = [0.3, 1.0]
    trial_rounds = [25, 50]                      # each trains for 25 rounds, and the best third for 50

    [search]
    trials = 20                                  # or 20 points between two bounds, on a logarithmic scale
    client_learning_rate = [0.003, 0.3]

A trial is a run with a candidate's flags and --evaluate_on=validation, so test clients take no part in it. The trials
of one of [[runs]] have the first value of each key of [grid], such as the first seed. The best candidate has the best
personalized mean over validation clients, after all epochs of the main strategy; the first one if two are equal. The
runs of the sweep are then made with it. `trial_rounds` gives successive halving (Jamieson and Talwalkar 2016,
arXiv 1502.07943), with a third as in Hyperband (Li et al. 2018, arXiv 1603.06560). Without it, a trial has as many
rounds as the run.

The points between bounds are a scrambled Halton sequence (SciPy). A point depends neither on earlier results nor on the
number of trials. So a search that was stopped, or now has more trials, reuses its finished trials.
"""

import dataclasses
import errno
import itertools
import math
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from absl import flags
from scipy.stats import qmc

from analysis import metric, runs, tables
from tff_personalization import errors, homes
from tff_personalization.experiment import settings as settings_lib
from tff_personalization.records import files
from tff_personalization.sweeps import sweep, sweep_file

Candidate = Mapping[str, Any]

MEASURED = "personalized_accuracy"
NOTE = "Personalized accuracy: mean over validation clients, after all epochs of the main strategy."

FILE = "search.csv"
_KEPT = 3  # One of three candidates trains for the next number of rounds.
# Words in the errors of runs that failed because of the machine, or that somebody stopped.
_NOT_OF_THE_CANDIDATE = (
    *map(os.strerror, (errno.ENOSPC, errno.EDQUOT)),
    "memory ran out",
    "ended by SIG",
    "The same command resumes",
)
_OF_TRIALS = {
    "evaluate_on": "validation",
    "participants": 0,
    "personalization_learning_rates": [],
    "personalization_examples": [],
    "plots": False,
}


def sweep_of(flag_values: flags.FlagValues) -> sweep.Sweep:
    """The sweep that --sweep names, checked. If the file has a [search], makes its trials first.

    If all trials of one of [[runs]] failed, so have its runs, without the flags that nothing chose; the others can be
    made.

    Raises:
        UserError: the file cannot be read, the program would refuse a run, another process is making a trial, or a
            trial failed with --sweep_stop_on_failure.
        Interrupted: a signal stopped the search, after the current trials saved their work.
    """
    file = sweep_file.read(homes.expand(flag_values["sweep"].value))
    points = list(file.points(flag_values["scale"].value))
    searches: dict[int, _Search] = {}
    for point in points:
        if point.search is not None and point.entry not in searches:
            searches[point.entry] = _Search(flag_values, file, point)
    made = sweep.Sweep(flag_values, file, [_completed(point, searches) for point in points])
    if searches:
        made.check_places()  # before the first trial
        _make_trials(flag_values, file, list(searches.values()))
        made = sweep.Sweep(flag_values, file, [_completed(point, searches) for point in points])
        for point, run in zip(points, made.runs, strict=True):
            if point.entry in searches and (error := searches[point.entry].error):
                run.status, run.error, run.overrides = "failed", error, point.overrides
    return made


def candidates(path: pathlib.Path, search: Mapping[str, Any], seed: int) -> list[Candidate]:
    """The candidates of a search: values of its flags.

    Args:
        path: the file, for messages.
        search: [search], or the `search` of one of [[runs]].
        seed: seeds the points between bounds.

    Raises:
        UserError: the search is written wrongly.
    """
    lists = {name: value for name, value in search.items() if name not in sweep_file.SETTINGS_OF_SEARCH}
    if not lists:
        raise errors.UserError(f"{path}: search: name a flag, as in client_learning_rate = [0.01, 0.1].")
    rounds = search.get("trial_rounds", [1])
    whole = isinstance(rounds, list) and rounds and all(type(each) is int and each > 0 for each in rounds)
    if not whole or rounds != sorted(set(rounds)):
        raise errors.UserError(f"{path}: search.trial_rounds: give increasing numbers of rounds, as in [25, 50].")
    if "trials" not in search:
        for name, values in lists.items():
            if not isinstance(values, list) or not values:
                raise errors.UserError(f"{path}: search.{name}: give a list of values, as in {name} = [1, 2].")
        return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    count = search["trials"]
    if not isinstance(count, int) or count < 1:
        raise errors.UserError(f"{path}: search.trials: give how many points to try, 1 or more.")
    for name, ends in lists.items():
        numbers = isinstance(ends, list) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends)
        if not numbers or not 0 < ends[0] < ends[1]:
            raise errors.UserError(f"{path}: search.{name}: give [least, greatest], 0 < least < greatest.")
    points = qmc.Halton(len(lists), scramble=True, seed=seed).random(count)
    return [{name: _between(lists[name], share) for name, share in zip(lists, point, strict=True)} for point in points]


def _between(bounds: list[float], share: float) -> float:
    """The number at a share of the way between two bounds on a logarithmic scale, with four digits."""
    low, high = bounds
    return min(high, max(low, float(f"{low * (high / low) ** share:.4g}")))


class _Search:
    """The search for one of [[runs]].

    Attributes:
        name: the label of the run, or its number.
        left: the candidates that are not out, the best first; all of them before the search.
        rounds: the rounds of the trials of each step; None for those of the run.
        rows: the rows of search.csv.
        error: why the search failed; "" if it did not.
    """

    def __init__(self, flag_values: flags.FlagValues, file: sweep_file.SweepFile, point: sweep_file.Point):
        """Reads and checks the search of a run.

        Raises:
            UserError: the search is written wrongly, or the program would refuse a trial.
        """
        search = point.search or {}
        self._path, self._point = file.path, point
        self.name = point.label or f"[[runs]] number {point.entry}"
        self.rounds: list[int | None] = search.get("trial_rounds", [None])
        self.left = candidates(file.path, search, flag_values["seed"].value)
        self.rows: list[dict[str, Any]] = []
        self.error = ""
        values = {**flag_values.flag_values_dict(), **point.overrides}
        (run,) = sweep.Sweep(flag_values, file, [_with(point, self.left[0])]).runs
        self._own = {name: value for name, value in _OF_TRIALS.items() if values[name] != value}  # no needless flags
        of_run = run.directory.experiment
        self._own["strategies"] = of_run.config.strategies[:1]
        unread = settings_lib.unread("strategies", {**of_run.values, "strategies": self._own["strategies"]})
        self._own |= dict.fromkeys(unread & of_run.given.keys())  # flags of the other strategies
        for step in range(len(self.rounds)):  # refuses what is wrong before the first trial
            _trials(flag_values, file, self.points(step)).check_distinct()

    def points(self, step: int) -> list[sweep_file.Point]:
        """The trials of a step: those of the candidates that are left."""
        rounds = self.rounds[step]
        own = self._own if rounds is None else {**self._own, "rounds": rounds}
        base = {name: value for name, value in self._point.overrides.items() if name not in own}
        return [sweep_file.Point({**base, **candidate}, own=own) for candidate in self.left]

    def choose(self, step: int, trials: Sequence[sweep.Run]) -> None:
        """Keeps the best candidates of a step, after the last one only the best. Then prints the table of the trials.

        Args:
            step: counted from 0.
            trials: the trials of the candidates that are left, in their order.

        Raises:
            UserError: another process is making some of the trials, or one was stopped or failed because of the
                machine.
        """
        if any(trial.status == sweep.IN_PROGRESS for trial in trials):
            raise errors.UserError(
                f"{self._path}: search for {self.name}: another process is making some of its trials: wait for it, "
                "then run this command again."
            )
        rows = [
            {"run": self.name, **candidate, **_outcome(trial), "chosen": False}
            for candidate, trial in zip(self.left, trials, strict=True)
        ]
        if stopped := [row["error"] for row in rows if any(words in row["error"] for words in _NOT_OF_THE_CANDIDATE)]:
            # It says nothing about the candidate, and would change the choice.
            raise errors.UserError(
                f"{self._path}: search for {self.name}: a trial was stopped, or failed because of the machine "
                f"({stopped[0]}): free disk or memory if needed, then run this command again. It reuses the finished "
                "trials."
            )
        self.rows += rows
        called, last = trials[0].metric, step == len(self.rounds) - 1
        ranked = sorted(
            (place for place, row in enumerate(rows) if row[MEASURED] is not None),
            key=lambda place: called.gain(rows[place][MEASURED], 0),
        )
        if not ranked:
            first, *others = dict.fromkeys(row["error"] for row in rows)
            self.error = f"all trials failed: {first}" + (f" (others: {FILE})" if others else "")
            print(f"\n{self._path}: search for {self.name}: {self.error}", file=sys.stderr)
            return
        kept = ranked[: 1 if last else math.ceil(len(ranked) / _KEPT)]
        self.left = [self.left[place] for place in kept]
        rows[kept[0]]["chosen"] = last
        if last:
            table = pd.DataFrame(self.rows).drop(columns=["run", "run_directory", "error"])
            table = table.rename(columns={MEASURED: f"personalized_{called.name}"})
            print(f"\n{self.name}")
            print(tables.text(table.map(sweep.cell), metric.named(NOTE, called)), flush=True)


def _make_trials(flag_values: flags.FlagValues, file: sweep_file.SweepFile, searches: Sequence[_Search]) -> None:
    """Makes the trials of all searches step by step, and writes search.csv.

    The trials of a step are one sweep: if several run at once, those of one search run beside those of another.

    Raises:
        UserError: another process is making some of the trials, or one was stopped or failed because of the
            machine, or with --sweep_stop_on_failure.
        Interrupted: a signal stopped it, after the current trials saved their work. search.csv stays as it was, because
            it may be that of an earlier search with more trials.
    """
    steps = max(len(search.rounds) for search in searches)
    for step in range(steps):
        searching = [search for search in searches if step < len(search.rounds) and not search.error]
        if not searching:
            break
        made = _trials(flag_values, file, [point for search in searching for point in search.points(step)])
        said = f"{file.path}: search, step {step + 1} of {steps}: {len(made.runs)} trials in {made.directory}"
        print(f"\n{said}", file=sys.stderr)
        made.start()
        if made.stopping:
            failed = next(run for run in made.runs if run.status == "failed")
            raise errors.UserError(f"{file.path}: search: a trial failed ({failed}): {failed.error}")
        trials = iter(made.runs)
        for search in searching:
            search.choose(step, list(itertools.islice(trials, len(search.left))))
    rows = pd.DataFrame([row for search in searches for row in search.rows])
    files.write_text(made.directory / FILE, rows.to_csv(index=False))


def _trials(flag_values: flags.FlagValues, file: sweep_file.SweepFile, points: list[sweep_file.Point]) -> sweep.Sweep:
    """Trials of one search or of several, of which two may have the same trial."""
    return sweep.Sweep(flag_values, file, points, f"{file.path.stem}_search", distinct=False)


def _completed(point: sweep_file.Point, searches: Mapping[int, _Search]) -> sweep_file.Point:
    """A run with the best candidate of its search, if it has one."""
    return _with(point, searches[point.entry].left[0]) if point.entry in searches else point


def _with(point: sweep_file.Point, candidate: Candidate) -> sweep_file.Point:
    return dataclasses.replace(point, overrides={**point.overrides, **candidate})


def _outcome(trial: sweep.Run) -> dict[str, Any]:
    """What search.csv says of a trial besides its candidate."""
    finished = trial.status == "finished"
    return {
        "rounds": trial.directory.experiment.config.rounds,
        MEASURED: runs.read(trial.directory.path).summary["personalized_accuracy"]["mean"] if finished else None,
        "status": trial.status,
        "run_directory": str(trial.directory.path),
        "error": trial.error,
    }
