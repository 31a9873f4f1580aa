"""The comparison for a visitor: how accuracy changes for the run's held-out writers."""

import dataclasses

import numpy as np

from tff_personalization.records import run_records


@dataclasses.dataclass(frozen=True)
class HeldOutWriters:
    """The final evaluation of a run's strategy, by test client with test examples.

    Attributes:
        more_right: how many more of a client's test examples are right after the last epoch than before, int, shape
            (n,).
        test_examples: each client's number of test examples, int, shape (n,).
    """

    more_right: np.ndarray
    test_examples: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """The gain in accuracy of each client."""
        return self.more_right / self.test_examples

    def share_that_gains_less(self, more_right: int, test_examples: int) -> float:
        """The share of clients with a smaller gain than `more_right` more right answers of `test_examples`."""
        return float(np.mean(self.more_right * test_examples < more_right * self.test_examples))


def read(run: run_records.Run, strategy: str) -> HeldOutWriters | None:
    """The held-out writers of a run under one of its strategies; None if the run has no per-client records.

    Raises:
        UserError: clients.csv is damaged.
    """
    try:
        table = run.client_gains(strategy)
    except run_records.NotRecordedError:
        return None
    return HeldOutWriters(table["more_right"].to_numpy(), table["predictions"].to_numpy())
