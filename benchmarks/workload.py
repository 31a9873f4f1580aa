"""The work of every contender, and the benchmark's protocol with a contender's process.

One round: 20 clients × 180 examples × 2 local epochs of SGD (0.02) in batches of 20 on the paper's CNN with dropout,
from the same weights, then the mean of the model deltas, weighted by examples. "Examples per second" counts every visit
of an example. This module imports only NumPy, because other frameworks have their own environments.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

NUM_CLASSES = 62
CHARACTERS, SEQUENCE = 90, 80


@dataclasses.dataclass(frozen=True)
class Workload:
    """One round of training."""

    clients: int = 20
    examples: int = 180
    local_epochs: int = 2
    batch_size: int = 20
    learning_rate: float = 0.02

    @property
    def visits(self) -> int:
        """The number of visits in a round."""
        return self.clients * self.examples * self.local_epochs

    def cohort(self, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each client's random images, uint8 (n, 28, 28), and labels, int32 (n,). Speed does not depend on them."""
        rng = np.random.default_rng(seed)
        return [
            (
                rng.integers(0, 256, (self.examples, 28, 28), np.uint8),
                rng.integers(0, NUM_CLASSES, self.examples, np.int32),
            )
            for _ in range(self.clients)
        ]


@dataclasses.dataclass(frozen=True)
class TextWorkload(Workload):
    """The same, with sequences of character ids as examples."""

    def cohort(self, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each client's random unpadded sequences, uint8 (n, 80), and the character after each, int32 (n, 80)."""
        rng = np.random.default_rng(seed)
        text = rng.integers(1, CHARACTERS - 4, (self.clients, self.examples, SEQUENCE + 1), np.int32)
        return [(sequences[:, :-1].astype(np.uint8), sequences[:, 1:].copy()) for sequences in text]


def serve(run_round: Callable[[], Any], **versions: str) -> None:
    """Does a round for each line on standard input and answers with its seconds. Ends when the input ends.

    Answers are lines of JSON on standard output: first, after two rounds to warm up, the `versions`; then `seconds`
    (wall time) for each round. So contenders wait and take turns, and only one works at a time.
    """
    for _ in range(2):
        run_round()
    print(json.dumps({"ready": versions}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run_round()
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
