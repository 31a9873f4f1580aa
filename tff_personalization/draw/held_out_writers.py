"""What a visitor is compared with: how accuracy changes for the run's held-out writers."""

import dataclasses

import numpy as np

from tff_personalization.records import run_records


@dataclasses.dataclass(frozen=True)
class HeldOutWriters:
    """The final evaluation of a run's strategy, by test client with test examples.

    Attributes:
        more_right: how many more of a client's test examples are right after the last epoch, int, shape (n,).
        test_examples: of each client, int, shape (n,).
    """

    more_right: np.ndarray
    test_examples: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """By how much accuracy rises, for each client."""
        return self.more_right / self.test_examples

    def share_that_gains_less(self, more_right: int, test_examples: int) -> float:
        """The share of the clients whose gain is smaller than `more_right` more right answers of `test_examples`."""
        return float(np.mean(self.more_right * test_examples < more_right * self.test_examples))


def read(run: run_records.Run, strategy: str) -> HeldOutWriters | None:
    """The held-out writers of a run under one of its strategies; None if it has no records of single clients.

    Raises:
        UserError: clients.csv is damaged.
    """
    try:
        table = run.client_gains(strategy)
    except run_records.NotRecordedError:
        return None
    return HeldOutWriters(table["more_right"].to_numpy(), table["predictions"].to_numpy())
