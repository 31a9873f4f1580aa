"""Reads and checks the records of a run directory without TensorFlow. The analysis reads runs only through this module.

The run directory may be in a zip file; see `places`.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tff_personalization.errors import UserError
from tff_personalization.metrics import ACCURACY, Metric
from tff_personalization.records import places

_METRICS = ("round", "stage", "initial_accuracy", "personalized_accuracy")
_EVALUATIONS = ("round", "split", "strategy", "epoch", "clients", "accuracy_mean", "accuracy_q25", "accuracy_q75")
_BY_ROUND = ("round", "client", "strategy", "epoch", "accuracy", "train_examples", "test_examples")
_CLIENTS = ("client", "strategy", "epoch", "accuracy", "train_examples", "test_examples")
_K_SHOT = ("examples", "strategy", "epoch", "accuracy_mean", "accuracy_q25", "accuracy_q75")
_CHOICE = ("learning_rate", "strategy", "epoch", "accuracy_mean")
_DECOMPOSITION = ("round", "level", "epochs", "part", "relative_norm", "cosine_with_fed_sgd", "share")
_DISTRIBUTION = ("strategy", "epoch", "bin_low", "bin_high", "clients")
_NUMBER = (int, float, type(None))  # null where there is none, as without a client with test examples
_SPREAD = {"mean": _NUMBER, "sd": _NUMBER}
# What config.json (of later versions) and summary.json have at least: the type of each entry, or those of its parts.
_CONFIG = {
    **dict.fromkeys(("run_name", "method", "task", "source"), str),
    **{"synthetic": bool, "seed": int, "flags": dict},
}
_OF_LATER_VERSIONS = {"given": dict, "client_data_file": dict | None, "starts": list}
SUMMARY = {
    **{"rounds": int, "strategy": str, "personalization_epochs": int, "test_clients": int},
    **dict.fromkeys(("initial_accuracy", "personalized_accuracy", "gain"), _SPREAD),
    **{"share_gaining": _NUMBER, "share_hurt": _NUMBER, "strategies": dict},
    "rounds_to_target": {"target_accuracy": _NUMBER, **dict.fromkeys(("initial", "personalized"), _NUMBER)},
    "times": {"wall_seconds": _NUMBER, "examples_per_second": _NUMBER},
}


class NotRecordedError(UserError):
    """The run is valid but lacks a record that a plot needs, such as per-client accuracies."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run directory; each record is read and checked when it is first used.

    Attributes:
        directory: the run directory, which may be in a zip file.
        config: contents of config.json.
    """

    directory: places.Place
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The name that the run was given."""
        return self.config["run_name"]

    @property
    def source(self) -> str:
        """What the data is, in a few words; says "synthetic" if it was generated."""
        source = self.config["source"]
        return f"synthetic: {source}" if self.config["synthetic"] and "synthetic" not in source.lower() else source

    @property
    def metric(self) -> Metric:
        """What the accuracy columns hold.

        Raises:
            UserError: malformed config.json.
        """
        # Earlier versions knew only shares of right predictions.
        higher = self.config.get("higher_is_better", ACCURACY.higher_is_better)
        largest = self.config.get("largest_score", ACCURACY.largest)
        sound = isinstance(higher, bool) and (largest is None or (isinstance(largest, int | float) and largest > 0))
        if not sound:
            raise UserError(
                f"{self.directory / 'config.json'}: higher_is_better {higher!r} or largest_score {largest!r} is "
                "damaged: restore it, or repeat the run."
            )
        return Metric(str(self.config.get("metric", ACCURACY.name)), higher, largest)

    def _read_csv(
        self, name: str, columns: tuple[str, ...], text_columns: frozenset[str] = places.TEXT_COLUMNS
    ) -> pd.DataFrame:
        return places.read_csv(self.directory / name, columns, text_columns, self.metric)

    @property
    def finished(self) -> bool:
        """Whether the run has reached its final evaluation."""
        return (self.directory / "summary.json").exists()

    def _check_is_there(self, name: str) -> bool:
        """Whether a record exists; UserError if it is missing because the run is unfinished."""
        there = (self.directory / name).exists()
        if not there:
            _ = self.summary
        return there

    def _read_clients(self, name: str) -> pd.DataFrame | None:
        """A table with a row for each client, strategy and epoch; None if a finished run does not have it."""
        return _with_correct(self._read_csv(name, _CLIENTS)) if self._check_is_there(name) else None

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """Contents of summary.json; UserError when the run is unfinished."""
        if not self.finished:
            raise UserError(
                f"{self.directory}: unfinished run (no summary.json); "
                "to finish it, repeat the command that started it, with the same flags"
            )
        return _read_json(self.directory / "summary.json", SUMMARY)

    @property
    def wall_seconds(self) -> float:
        """Seconds of training and evaluations; NaN if the run reused rounds, whose time it does not have."""
        seconds = self.summary["times"]["wall_seconds"]
        return math.nan if seconds is None or "rounds_taken_over" in self.config else float(seconds)

    @functools.cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per round; accuracies are missing on rounds without evaluation.

        Raises:
            NotRecordedError: the run has no rounds, as when a method does not train.
            UserError: malformed metrics.csv.
        """
        if not (self.directory / "metrics.csv").exists() and not (self.finished and self.summary["rounds"]):
            raise NotRecordedError(f"{self.directory}: no metrics.csv, the run has had no rounds; give a run that has")
        table = self._read_csv("metrics.csv", _METRICS)
        if self.finished and len(table) != self.summary["rounds"]:
            raise UserError(
                f"{self.directory / 'metrics.csv'}: {len(table)} rows for {self.summary['rounds']} rounds: restore it, "
                "or repeat the run."
            )
        return table

    @functools.cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row per (round, split, strategy, epoch); epoch 0 is before personalization."""
        self._check_is_there("evaluations.csv")
        return self._read_csv("evaluations.csv", _EVALUATIONS)

    @functools.cached_property
    def clients(self) -> pd.DataFrame | None:
        """Final evaluation, one row per (client, strategy, epoch); None when the run released only aggregates.

        Raises:
            UserError: unfinished run, malformed clients.csv, or one that is lost.
        """
        table, expected = self._read_clients("clients.csv"), self.summary["test_clients"]
        if table is None:
            if self.config["flags"].get("evaluation_release") == "records":
                raise UserError(f"{self.directory / 'clients.csv'}: missing: restore it, or repeat the run.")
            return None
        counts = table.groupby(["strategy", "epoch"]).size()
        if not len(counts) or not counts.eq(expected).all():
            raise UserError(
                f"{self.directory / 'clients.csv'}: not {expected} rows for each strategy and epoch, one for each test "
                "client: restore it, or repeat the run."
            )
        return table

    @property
    def recorded_clients(self) -> pd.DataFrame:
        """As `clients`; NotRecordedError if the run released only aggregates."""
        if self.clients is None:
            raise NotRecordedError(
                f"{self.directory}: no clients.csv, the run released only aggregates; "
                "give a run made with --evaluation_release=records"
            )
        return self.clients

    @functools.cached_property
    def participants(self) -> pd.DataFrame | None:
        """As `clients`, for participants; None when none are on record."""
        return self._read_clients("participants.csv")

    @functools.cached_property
    def distribution(self) -> pd.DataFrame:
        """Final evaluation, one row per (strategy, epoch, bin): how many clients have an accuracy in the bin."""
        self._check_is_there("distribution.csv")
        return self._read_csv("distribution.csv", _DISTRIBUTION)

    @functools.cached_property
    def k_shot(self) -> pd.DataFrame:
        """Final evaluation by number of train examples: one row per (examples, strategy, epoch); examples is text.

        Raises:
            NotRecordedError: the run was not evaluated with fewer examples.
            UserError: unfinished run, or malformed k_shot.csv.
        """
        if not self._check_is_there("k_shot.csv") and not self.config["flags"].get("personalization_examples"):
            raise NotRecordedError(
                f"{self.directory}: no k_shot.csv; give a run made with --personalization_examples=0,1,5,20,all"
            )
        return self._read_csv("k_shot.csv", _K_SHOT, places.TEXT_COLUMNS | {"examples"})

    @functools.cached_property
    def choice(self) -> pd.DataFrame:
        """Accuracy on validation clients: one row per (learning_rate, strategy, epoch).

        Raises:
            NotRecordedError: the run has no validation clients.
            UserError: malformed choice.csv.
        """
        if not self._check_is_there("choice.csv"):
            raise NotRecordedError(f"{self.directory}: no choice.csv; give a run made with --validation_clients")
        return self._read_csv("choice.csv", _CHOICE)

    @functools.cached_property
    def chosen_clients(self) -> pd.DataFrame | None:
        """As `clients`, for the strategy that validation clients choose: its epoch 0 and its last epoch.

        None if nothing was chosen, or only aggregates were released.
        """
        return self._read_clients("chosen_clients.csv")

    @property
    def decomposition(self) -> pd.DataFrame:
        """The terms of FedAvg's updates: one row per (round, level, part); part 0 is FedSGD's term.

        Raises:
            NotRecordedError: the run was not decomposed, or its decomposition has no rounds.
            UserError: malformed decomposition.csv.
        """
        table = self.decomposition_by_epochs
        return table[table["epochs"] == table["epochs"].max()]

    @functools.cached_property
    def decomposition_by_epochs(self) -> pd.DataFrame:
        """As `decomposition`, with rows per `epochs`: also for updates of fewer epochs from the same models."""
        if not self._check_is_there("decomposition.csv"):
            raise NotRecordedError(
                f"{self.directory}: no decomposition.csv; run tff_personalization.tools.decompose on it first"
            )
        table = self._read_csv("decomposition.csv", _DECOMPOSITION, places.TEXT_COLUMNS | {"level"})
        if table.empty:
            path = self.directory / "decomposition.csv"
            raise NotRecordedError(f"{path}: no rounds in it; run tff_personalization.tools.decompose again")
        return table

    @functools.cached_property
    def by_round(self) -> pd.DataFrame:
        """As `clients`, for the main strategy and the models of rounds before the last; often empty."""
        there = self._check_is_there("by_round.csv")
        return _with_correct(self._read_csv("by_round.csv", _BY_ROUND) if there else pd.DataFrame(columns=_BY_ROUND))

    def client_gains(self, strategy: str | None = None, round_number: int | None = None) -> pd.DataFrame:
        """Accuracies of every test client with something to predict in its test part, under a strategy.

        Args:
            strategy: its name; None for the run's main one. For rounds before the last, only the main one is recorded.
            round_number: the round; None for the last.

        Returns:
            Indexed by client; columns initial, personalized (accuracies), train_examples, predictions (on the client's
            test part), more_right (how many more of them are right after personalization), gain (of accuracy).

        Raises:
            NotRecordedError: the run released only aggregates, the round was not evaluated, or no test client has test
                examples.
            UserError: unfinished run, or malformed clients.csv.
        """
        summary = self.summary
        last = round_number in (None, summary["rounds"])
        clients, path = self.recorded_clients, self.directory / ("clients.csv" if last else "by_round.csv")
        if not last:
            clients = self.by_round[self.by_round["round"] == round_number]
            if clients.empty:
                raise NotRecordedError(
                    f"{self.directory}: round {round_number} was not evaluated on test clients; run "
                    f"tff_personalization.tools.judge_rounds on it with --rounds={round_number}"
                )
        strategy = summary["strategy"] if strategy is None else strategy
        clients = clients[(clients["strategy"] == strategy) & (_predictions(clients) > 0)]
        if clients.empty:
            raise NotRecordedError(f"{path}: no client with test examples under strategy {strategy!r}")
        if clients.duplicated(["client", "epoch"]).any():
            raise UserError(f"{path}: column client: a client appears twice in an epoch; repeat the run")
        by_epoch, correct = (
            clients.pivot(index="client", columns="epoch", values=name) for name in ("accuracy", "correct")
        )
        epochs = summary["personalization_epochs"]
        for epoch in (0, epochs):
            if epoch not in by_epoch or by_epoch[epoch].isna().any():
                raise UserError(f"{path}: column accuracy: missing for a client in epoch {epoch}; repeat the run")
        before = clients[clients["epoch"] == 0].set_index("client")
        gains = pd.DataFrame(
            {
                "initial": by_epoch[0],
                "personalized": by_epoch[epochs],
                "train_examples": before["train_examples"],
                "predictions": _predictions(before),
                "more_right": self.metric.gain(correct[0], correct[epochs]),
            }
        )
        return gains.assign(gain=self.metric.gain(gains["initial"], gains["personalized"]))


def read(path: places.Named) -> Run:
    """The run in a folder; UserError when it is not a run directory or its config.json is malformed."""
    directory = places.place(path)
    if not directory.exists():
        raise UserError(f"{directory}: no such directory; give a run directory")
    if not directory.is_dir():
        raise UserError(f"{directory}: not a directory; give a run directory")
    if not (directory / "config.json").exists():
        raise UserError(f"{directory}: not a run directory (no config.json); give the directory that a run wrote")
    config = _read_json(directory / "config.json", _CONFIG, _OF_LATER_VERSIONS)
    optimizers = config["flags"].get("optimizers") or {}
    specs = optimizers.values() if isinstance(optimizers, dict) else [None]
    if not all(isinstance(spec, dict) and {"name", "learning_rate"} <= spec.keys() for spec in specs):
        raise UserError(f"{directory / 'config.json'}: 'flags' in it is damaged: restore it, or repeat the run.")
    return Run(directory, config)


def _read_json(path: places.Place, types: Mapping[str, Any], may_lack: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The JSON object in a file; UserError when it is malformed, or an entry is missing or has another type."""
    contents = places.read_json(path, types)
    for name, expected in {**types, **{name: kind for name, kind in may_lack.items() if name in contents}}.items():
        found, parts = contents[name], expected
        if not isinstance(expected, dict):
            found, parts = {name: found}, {name: expected}
        sound = isinstance(found, dict) and all(
            part in found and isinstance(found[part], kind) for part, kind in parts.items()
        )
        if not sound:
            raise UserError(f"{path}: {name!r} in it is damaged: restore it, or repeat the run.")
    return contents


def _predictions(table: pd.DataFrame) -> pd.Series:
    """The number of predictions of each row: one for each test example, unless the table has a column for it."""
    return table["test_predictions" if "test_predictions" in table else "test_examples"]


def _with_correct(table: pd.DataFrame) -> pd.DataFrame:
    """A table of clients with the column `correct`, which earlier versions did not record."""
    if "correct" in table:
        return table
    correct = table["accuracy"].astype(float) * _predictions(table).astype(float)
    return table.assign(correct=np.nan_to_num(correct.round(), posinf=0, neginf=0).astype(int))
