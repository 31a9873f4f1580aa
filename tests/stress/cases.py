"""A case of malformed input: files in a directory, and the flags of the program there.

All cases are small runs, so that accepted ones end soon.
"""

import dataclasses
import pathlib
from collections.abc import Callable

SMALL = (
    *("--rounds=1", "--clients_per_round=2", "--test_clients=1", "--local_epochs=1", "--personalization_epochs=1"),
    *("--rounds_per_evaluation=0", "--noplots", "--output_dir=runs"),
)
CACHED = "--cache_dir=cache"  # for data that is kept there; other data refuses the flag
NAMED = "--run_name=run"
IMAGES, TEXT = ("--model=linear", *SMALL, NAMED), ("--task=shakespeare", *SMALL, NAMED)
CANARY = "this was executed"
"""The name of a file that only exists if something of the input was executed."""

Make = Callable[[pathlib.Path], list[str]]
"""Writes an input into a directory, and returns the flags with which the program is called there."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        kind: what is malformed.
        name: how it is malformed.
        make: see `Make`.
        seconds: how long the program may take.
    """

    kind: str
    name: str
    make: Make
    seconds: float = 120.0
