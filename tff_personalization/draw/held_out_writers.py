"""What a visitor is compared with: how accuracy changes for the run's held-out writers."""

import dataclasses
import pathlib

import numpy as np
import pandas as pd

from tff_personalization import errors


@dataclasses.dataclass(frozen=True)
class HeldOutWriters:
    """The final evaluation of a run's strategy, by test client with test examples.

    Attributes:
        initial: accuracy of the initial model on each client's test part.
        personalized: that of the personalized model, after the last epoch.
    """

    initial: np.ndarray
    personalized: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """By how much accuracy rises, for each client."""
        return self.personalized - self.initial

    def share_that_gains_less(self, gain: float) -> float:
        """The share of the clients whose gain is smaller than `gain`."""
        # Accuracies are fractions of small numbers: what differs less than this differs by rounding alone.
        return float(np.mean(self.gains < gain - 1e-9))


def read(run: pathlib.Path, strategy: str, epochs: int) -> HeldOutWriters | None:
    """The held-out writers of a run; None if it has no records of single clients.

    Args:
        run: the run directory.
        strategy: a strategy of the run.
        epochs: of its fine-tuning.

    Raises:
        UserError: clients.csv is damaged.
    """
    path = run / "clients.csv"
    if not path.exists():
        return None
    try:
        table = pd.read_csv(path, dtype={"client": str})
        table = table[(table["strategy"] == strategy) & table["accuracy"].notna()]
        by_epoch = table.pivot(index="client", columns="epoch", values="accuracy")
        initial, personalized = (by_epoch[epoch].to_numpy(float) for epoch in (0, epochs))
    except (OSError, ValueError, KeyError) as error:
        raise errors.UserError(f"{path}: it is damaged ({type(error).__name__}): evaluate the run again.") from error
    return HeldOutWriters(initial, personalized) if len(initial) else None
