"""What a visitor is compared with: how accuracy changes for the run's held-out writers."""

import dataclasses

import numpy as np

from tff_personalization.records import run_records


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
        # Accuracies are fractions of small numbers: what differs less than this differs only by rounding.
        return float(np.mean(self.gains < gain - 1e-9))


def read(run: run_records.Run, strategy: str) -> HeldOutWriters | None:
    """The held-out writers of a run under one of its strategies; None if it has no records of single clients.

    Raises:
        UserError: clients.csv is damaged.
    """
    try:
        table = run.client_gains(strategy)
    except run_records.NotRecordedError:
        return None
    return HeldOutWriters(table["initial"].to_numpy(), table["personalized"].to_numpy())
