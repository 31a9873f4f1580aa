"""Names global weights: the model's own, and those that a method adds.

TFF's processes, aggregators, checkpoints and saved models hold one flat tuple: the model's weights in the model's
order, then each added part. A part has the structure of the model's weights: another model, or a rate for each weight.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tff_personalization.models import functional

Weights = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class GlobalWeights:
    """The weights that the server sends to clients, or a delta, gradient or type of the same structure.

    >>> weights = GlobalWeights(theta, "rates", (rates,))
    >>> weights.like(weights.flat).added("rates") == (rates,)
    True

    Attributes:
        model: the model's weights θ, arrays or tensors.
        name: what the method adds, such as "rates"; "" for nothing.
        parts: the added parts, each of the model's structure.
    """

    model: Weights
    name: str = ""
    parts: tuple[Weights, ...] = ()

    @classmethod
    def initial(cls, model: functional.SeededModel) -> "GlobalWeights":
        """The global weights before the first round, for a method that adds nothing."""
        return cls(tuple(model.initial_weights[0]))

    @classmethod
    def named(cls, flat: Sequence[Any], model: functional.SeededModel, name: str) -> "GlobalWeights":
        """Names the weights in a flat tuple; `name` is what the method adds."""
        return cls(tuple(model.initial_weights[0]), name).like(flat)

    def like(self, flat: Sequence[Any]) -> "GlobalWeights":
        """The values of a flat tuple under these names. The number of added parts may differ."""
        size = len(self.model)
        model, *parts = (tuple(flat[first : first + size]) for first in range(0, len(flat), size))
        return GlobalWeights(model, self.name, tuple(parts))

    @property
    def flat(self) -> Weights:
        """All weights in one tuple."""
        return sum(self.parts, self.model)

    def added(self, name: str) -> tuple[Weights, ...]:
        """The added parts, whose name must be the given one.

        Raises:
            KeyError: the method adds something else, or nothing.
        """
        if name != self.name:
            raise KeyError(name)
        return self.parts
