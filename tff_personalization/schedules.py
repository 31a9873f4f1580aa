"""Learning rates that change from round to round.

In round t of T, counted from 1, an optimizer's learning rate is multiplied by a factor: the schedule's factor times
min(1, t / W), with a warm-up over W rounds. The server optimizer counts its steps, one a round. So its t does not count
rounds that are rejected, such as those without a finite update. In IFCA each cluster counts its own steps, and so not
the rounds without its members. A client begins each round with a fresh optimizer, so the round's number comes with its
data. Adding a schedule is one line in `SCHEDULES`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

CONSTANT = "constant"
# Maps t and T, float32, and the schedule with its parameters to the factor.
SCHEDULES: dict[str, Callable[[tf.Tensor, tf.Tensor, "Schedule"], tf.Tensor]] = {
    CONSTANT: lambda t, total, schedule: tf.ones_like(t),
    # decay^(t − 1)
    "exponential": lambda t, total, schedule: schedule.decay ** (t - 1.0),
    # √(W / t) after the warm-up; 1 / √t without one
    "inverse_sqrt": lambda t, total, schedule: tf.minimum(1.0, tf.sqrt(max(schedule.warmup_rounds, 1) / t)),
    # from 1 in the first round towards 0 after the last, as half a wave of the cosine (Loshchilov and Hutter, 2017)
    "cosine": lambda t, total, schedule: (1.0 + tf.cos(math.pi * (t - 1.0) / total)) / 2.0,
}


OF_ALL_ROUNDS = frozenset({"cosine"})
"""The schedules that look at T."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How a learning rate changes over rounds.

    Attributes:
        name: in `SCHEDULES`.
        decay: the factor from one round to the next, for "exponential".
        warmup_rounds: W, the rounds over which the learning rate rises in equal steps; 0 for none.
    """

    name: str = CONSTANT
    decay: float = 1.0
    warmup_rounds: int = 0

    def factor(self, round_number: tf.Tensor | int, rounds: int) -> tf.Tensor:
        """float32, the factor of the learning rate in a round, counted from 1, of `rounds`."""
        t, total = tf.cast(round_number, tf.float32), tf.cast(rounds, tf.float32)
        factor = SCHEDULES[self.name](t, total, self)
        return factor * tf.minimum(1.0, t / self.warmup_rounds) if self.warmup_rounds else factor


def for_server(
    optimizer: tff.learning.optimizers.Optimizer, learning_rate: float, schedule: Schedule, rounds: int
) -> tff.learning.optimizers.Optimizer:
    """The optimizer, with the learning rate of round t in its t-th step. Its state holds the count."""
    return tff.learning.optimizers.schedule_learning_rate(
        optimizer, lambda steps_before: learning_rate * schedule.factor(steps_before + 1, rounds)
    )


def for_clients(
    optimizer: tff.learning.optimizers.Optimizer, schedule: Schedule, rounds: int
) -> tff.learning.optimizers.Optimizer:
    """The optimizer, with a schedule for `at_round` and `client_factor`."""
    return _ByRound(optimizer, schedule, rounds)


class _ByRound(tff.learning.optimizers.Optimizer):
    def __init__(self, optimizer: tff.learning.optimizers.Optimizer, schedule: Schedule, rounds: int):
        self._optimizer = optimizer
        self._schedule = schedule
        self._rounds = rounds

    def factor(self, round_number: tf.Tensor) -> tf.Tensor:
        return self._schedule.factor(round_number, self._rounds)

    def initialize(self, specs: Any) -> Any:
        return self._optimizer.initialize(specs)

    def next(self, state: Any, weights: Any, gradients: Any) -> tuple[Any, Any]:
        return self._optimizer.next(state, weights, gradients)


def client_factor(optimizer: tff.learning.optimizers.Optimizer, round_number: tf.Tensor | None) -> tf.Tensor | float:
    """The factor of a client optimizer's learning rate in a round; 1 without a schedule.

    Raises:
        ValueError: the optimizer has a schedule, and there is no round.
    """
    if not isinstance(optimizer, _ByRound):
        return 1.0
    if round_number is None:
        raise ValueError("an optimizer with a schedule needs the round's number")
    return optimizer.factor(round_number)


def at_round(optimizer: tff.learning.optimizers.Optimizer, state: Any, round_number: tf.Tensor | None) -> Any:
    """A client optimizer's fresh state, with the round's learning rate; raises as `client_factor`."""
    key, factor = tff.learning.optimizers.LEARNING_RATE_KEY, client_factor(optimizer, round_number)
    return state | {key: state[key] * factor} if isinstance(optimizer, _ByRound) else state
