"""Global models that a run keeps: `models/round_<r>.npz`, the trainable weights after round r, in the model's order.

A run keeps the model of the last round, and one every `--rounds_per_model` rounds. With validation clients, it also
keeps the model of the evaluated round that was best on them. NumPy reads the files: arrays arr_0, arr_1, …
"""

import pathlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from tff_personalization import metrics
from tff_personalization.records import files

_PREFIX = "round_"


class SavedModels:
    """The models in a directory, by round. The directory is made when the first model is saved."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        files.clear_leftovers(path)

    def rounds(self) -> list[int]:
        """The rounds after which the model is kept, in order."""
        numbers = (file.stem.removeprefix(_PREFIX) for file in self._path.glob(f"{_PREFIX}*.npz"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def save(self, weights: Sequence[np.ndarray], round_number: int) -> None:
        """Saves the weights after a round. The file is written whole or not at all."""
        self._path.mkdir(exist_ok=True)
        files.save_arrays(self.file(round_number), weights)

    def load(self, round_number: int) -> tuple[np.ndarray, ...]:
        """The weights after a round; UserError if their file is damaged or missing."""
        return tuple(files.load_arrays(self.file(round_number)).values())

    def keep(self, rounds: Collection[int]) -> None:
        """Deletes the models of all other rounds."""
        for round_number in self.rounds():
            if round_number not in rounds:
                self.file(round_number).unlink()

    def file(self, round_number: int) -> pathlib.Path:
        """The file of the weights after a round, if they are kept."""
        return self._path / f"{_PREFIX}{round_number}.npz"


class Best(NamedTuple):
    """The evaluated round that is best on validation clients, and their mean accuracy after personalization."""

    round_number: int
    accuracy: float


def best_on_validation(evaluations: pd.DataFrame, strategy: str, epochs: int, metric: metrics.Metric) -> Best | None:
    """The evaluated round with the best personalized accuracy on validation clients; the first one of several.

    Args:
        evaluations: rows of evaluations.csv.
        strategy: the strategy that is compared.
        epochs: the epoch after which its accuracy is compared.
        metric: what is called accuracy; it says whether higher or lower is better.

    Returns:
        The round with its accuracy; None if no evaluation of validation clients has an accuracy.
    """
    judged = evaluations[
        (evaluations["split"] == "validation")
        & (evaluations["strategy"] == strategy)
        & (evaluations["epoch"] == epochs)
    ].dropna(subset="accuracy_mean")
    if judged.empty:
        return None
    means = judged["accuracy_mean"]
    best = judged.loc[means.idxmax() if metric.higher_is_better else means.idxmin()]
    return Best(int(best["round"]), float(best["accuracy_mean"]))
