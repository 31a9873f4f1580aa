"""What models are judged by: accuracy, or a metric that the task names. Which of two values is better is asked here.

Records call the metric accuracy in the names of their columns, whatever it is, and the sum of its scores `correct`.
Tables, plots and pages call it by its name. A gain is positive where the metric becomes better, and negative where it
becomes worse: a client is hurt where its gain is negative.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Metric:
    """The mean of a score over predictions.

    Attributes:
        name: what tables, plots and messages call it; it is read after "mean", "initial" and "personalized".
        higher_is_better: whether a higher value is better, or a lower one.
        largest: the largest score of a prediction; the smallest is 0. None for a share of right predictions, whose
            scores are counted: 1 for a right one, 0 for a wrong one.
    """

    name: str = "accuracy"
    higher_is_better: bool = True
    largest: float | None = None

    @property
    def is_share(self) -> bool:
        """Whether it is a share of right predictions."""
        return self.largest is None

    @property
    def upper(self) -> float:
        """Its largest value: 1 for a share."""
        return 1.0 if self.largest is None else self.largest

    def at(self, share: float) -> float:
        """The value that is a share of the way from the worst value to the best one."""
        return round(self.upper * (share if self.higher_is_better else 1 - share), 9)

    def gain(self, before: Any, after: Any) -> Any:
        """How much better `after` is than `before`, numbers or arrays of any kind; negative where it is worse."""
        return after - before if self.higher_is_better else before - after


ACCURACY = Metric()
