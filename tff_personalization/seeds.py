"""Derives every random choice from the run's seed and a named path.

A path says what is drawn: `("init",)`, `("cohort", round)`, `("local_training", round, client)`, `("split",)`. The same
seed and path always give the same draw, independent of earlier draws. So a resumed run repeats an uninterrupted one.
"""

import hashlib

import numpy as np


def _digest(run_seed: int, path: tuple[str | int, ...]) -> bytes:
    return hashlib.sha256("/".join(str(part) for part in (run_seed, *path)).encode()).digest()


def generator(run_seed: int, *path: str | int) -> np.random.Generator:
    """A NumPy generator for the random choice named by `path` in the run with seed `run_seed`."""
    return np.random.default_rng(np.frombuffer(_digest(run_seed, path), np.uint32))


def stateless(run_seed: int, *path: str | int) -> np.ndarray:
    """An int32 array of shape (2,), the seed that TensorFlow's stateless random ops take, for `path`."""
    return np.frombuffer(_digest(run_seed, path)[:8], np.int32).copy()
