"""Checks that a peer's round is the workload: it visits every example in every epoch and changes every weight array."""

import sys
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import workload

WORK = workload.Workload()


def check_training(run_round: Callable[[], int], weights: Callable[[], Sequence[np.ndarray]]) -> None:
    """Does one round, which must return its number of visits. If it is wrong, exits with status 1.

    `weights` returns copies of the global model's arrays, of any shapes, in the order of the layers.
    """
    before = weights()
    visited = run_round()
    after = weights()
    faults = []
    if visited != WORK.visits:
        faults.append(f"it visited {visited} examples and not {WORK.visits}")
    if len(before) != 8 or sum(array.size for array in before) != 1_206_590:
        faults.append("the model is not the paper's")
    if any(np.array_equal(old, new) for old, new in zip(before, after, strict=True)):
        faults.append("some weights did not move")
    if not all(np.isfinite(array).all() for array in after):
        faults.append("some weights are not finite")
    if faults:
        print(f"Error: the round is not the workload's: {', '.join(faults)}", file=sys.stderr)
        sys.exit(1)
