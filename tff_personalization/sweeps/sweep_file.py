"""A sweep's file: its runs, and the flags that each scale changes.

[about]                                   # the purpose of the sweep, in words; see analysis/study.py
title = "Who gains"

[grid]                                    # every combination of these
method = ["fed_avg", "fed_sgd"]
seed = [1, 2, 3]

[[runs]]                                  # each of these, with every combination of the grid if there is one
label = "half"                            # a name to find them by, if needed
server_learning_rate = 0.5

[scale.small]                             # with --scale=small: replaces the grid's values, or adds to them
rounds = [60]

[[scale.small.runs]]                      # replaces [[runs]]
server_learning_rate = 1.0

[search]                                  # instead of grid and runs: see sweep.py
"""

import dataclasses
import itertools
import pathlib
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from tff_personalization import errors

_SECTIONS: dict[str, type] = {"grid": dict, "runs": list, "search": dict, "about": dict, "scale": dict}


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep: the flags that distinguish it, and its name ("" for most)."""

    overrides: Mapping[str, Any]
    label: str = ""


@dataclasses.dataclass(frozen=True)
class SweepFile:
    """A sweep's file with a checked structure. Whether its flags exist is checked elsewhere."""

    path: pathlib.Path
    contents: Mapping[str, Any]

    @property
    def about(self) -> Mapping[str, Any]:
        """The purpose of the sweep, in words."""
        return self.contents.get("about", {})

    @property
    def scales(self) -> tuple[str, ...]:
        """The names of its scales."""
        return tuple(self.contents.get("scale", {}))

    @property
    def search(self) -> Mapping[str, Any] | None:
        """The section [search], if the sweep is a search."""
        return self.contents.get("search")

    def points(self, scale: str = "") -> Iterator[Point]:
        """Each of [[runs]] with each combination of the grid, at the scale.

        Raises:
            UserError: the scale does not exist or is missing, or a flag is in two places or has no list of values.
        """
        changes = dict(self._scale(scale))
        runs = changes.pop("runs", self.contents.get("runs", [{}]))
        if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
            raise errors.UserError(f"{self.path}: scale.{scale}.runs: write it as [[scale.{scale}.runs]].")
        grid = {**self.contents.get("grid", {}), **changes}
        for name, values in grid.items():
            if not isinstance(values, list) or not values:
                where = f"scale.{scale}" if name in changes else "grid"
                raise errors.UserError(f"{self.path}: {where}.{name}: give a list of values, as in {name} = [1, 2].")
        for number, run in enumerate(runs, start=1):
            own = dict(run)
            label = own.pop("label", "")
            if not isinstance(label, str):
                raise errors.UserError(f"{self.path}: label of [[runs]] number {number}: give words.")
            twice = sorted(set(own) & set(grid))
            if twice:
                where = f"[scale.{scale}]" if twice[0] in changes else "[grid]"
                raise errors.UserError(
                    f"{self.path}: {twice[0]}: is in {where} and in [[runs]] number {number}: keep one."
                )
            for combination in itertools.product(*grid.values()):
                yield Point({**own, **dict(zip(grid, combination, strict=True))}, label)

    def _scale(self, name: str) -> Mapping[str, Any]:
        scales = self.contents.get("scale", {})
        if not name and not scales:
            return {}
        if name not in scales:
            known = f"of {', '.join(scales)}" if scales else "none, for the file has none"
            raise errors.UserError(f"--scale={name}: {self.path} has no [scale.{name}]: give one {known}.")
        return scales[name]


def read(path: pathlib.Path) -> SweepFile:
    """Reads a sweep's file.

    Raises:
        UserError: it cannot be read, or is not a sweep.
    """
    try:
        contents = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise errors.UserError(f"--sweep={path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:  # includes tomllib's error, which names line and column
        raise errors.UserError(f"--sweep={path}: not TOML: {error}.") from error
    unknown = sorted(set(contents) - set(_SECTIONS))
    if unknown:
        raise errors.UserError(f"{path}: {unknown[0]}: put flags under [grid], [[runs]] or [search].")
    asked = set(contents) - {"about", "scale"}
    if not asked or ("search" in asked and set(contents) - {"about", "search"}):
        raise errors.UserError(f"{path}: give [grid] and [[runs]], or one of them, or only [search].")
    for name, kind in _SECTIONS.items():
        value = contents.get(name, kind())
        items = value if kind is list else value.values() if name == "scale" and isinstance(value, dict) else []
        if not isinstance(value, kind) or not all(isinstance(item, dict) for item in items):
            form = {"runs": "[[runs]]", "scale": "[scale.NAME]"}.get(name, f"[{name}]")
            raise errors.UserError(f"{path}: {name}: write it as {form}.")
    return SweepFile(path, contents)
