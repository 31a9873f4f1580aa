"""A sweep's file: its runs, and the flags that each scale changes.

[about]                                   # the purpose of the sweep, in words; see analysis/study.py
title = "Who gains"

[grid]                                    # every combination of these
method = ["fed_avg", "fed_sgd"]
seed = [1, 2, 3]

[[runs]]                                  # each of these, with every combination of the grid if there is one
label = "half"                            # a name to find them by, if needed
server_learning_rate = 0.5
grid = {seed = [1, 2, 3, 4]}              # for this one, replaces values of [grid], or adds to them

[scale.small]                             # with --scale=small: replaces the grid's values, or adds to them
rounds = [60]

[[scale.small.runs]]                      # replaces [[runs]]
server_learning_rate = 1.0

[search]                                  # flags that validation clients choose for each of [[runs]]: see search.py
client_learning_rate = [0.01, 0.03, 0.1]
"""

import dataclasses
import itertools
import pathlib
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from tff_personalization import errors

SETTINGS_OF_SEARCH = ("trials", "trial_rounds")
"""The keys of [search] that are no flags."""

_SECTIONS: dict[str, type] = {"grid": dict, "runs": list, "search": dict, "about": dict, "scale": dict}


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        overrides: the flags that distinguish it.
        label: its name; "" for most.
        entry: the number of its [[runs]], counted from 1.
        search: the [search] for its other flags; None without one.
        own: flags that take precedence over `overrides` and over the command line.
    """

    overrides: Mapping[str, Any]
    label: str = ""
    entry: int = 1
    search: Mapping[str, Any] | None = None
    own: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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

    def points(self, scale: str = "") -> Iterator[Point]:
        """Each of [[runs]] with each combination of the grid, at the scale.

        Raises:
            UserError: the scale does not exist or is missing, or a flag is in two places or has no list of values.
        """
        changes = dict(self._scale(scale))
        runs = changes.pop("runs", self.contents.get("runs", [{}]))
        if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
            raise errors.UserError(f"{self.path}: scale.{scale}.runs: write it as [[scale.{scale}.runs]].")
        of_all = self._grid("[grid]", self.contents.get("grid", {})) | self._grid(f"[scale.{scale}]", changes)
        for number, run in enumerate(runs, start=1):
            own, place = dict(run), f"[[runs]] number {number}"
            label = own.pop("label", "")
            if not isinstance(label, str):
                raise errors.UserError(f"{self.path}: label of {place}: give words.")
            search = self._search(own.pop("search", None), place)
            of_run = own.pop("grid", {})
            if not isinstance(of_run, dict):
                raise errors.UserError(f"{self.path}: grid of {place}: write it as grid = {{FLAG = [1, 2]}}.")
            grid = of_all | self._grid(f"the grid of {place}", of_run)
            places = {name: where for name, (where, _) in grid.items()}
            for of, names in ((place, own), ("[search]", search or {})):
                if twice := sorted(set(names) & set(places)):
                    raise errors.UserError(f"{self.path}: {twice[0]}: is in {places[twice[0]]} and in {of}: keep one.")
                places.update(dict.fromkeys(names, of))
            for combination in itertools.product(*(values for _, values in grid.values())):
                yield Point({**own, **dict(zip(grid, combination, strict=True))}, label, number, search)

    def _grid(self, place: str, lists: Mapping[str, Any]) -> dict[str, tuple[str, list[Any]]]:
        """The place and the values of each flag."""
        for name, values in lists.items():
            if not isinstance(values, list) or not values:
                raise errors.UserError(f"{self.path}: {name} in {place}: give a list of values, as in {name} = [1, 2].")
        return {name: (place, values) for name, values in lists.items()}

    def _search(self, of_run: Any, place: str) -> Mapping[str, Any] | None:
        """The search of a run: [search], or the run's own flags with the settings of [search]; None if it has none."""
        common = self.contents.get("search", {})
        if of_run is None:
            return common or None
        if not isinstance(of_run, dict):
            raise errors.UserError(f"{self.path}: search of {place}: write it as search = {{FLAG = [1, 2]}}.")
        return {name: common[name] for name in SETTINGS_OF_SEARCH if name in common} | of_run if of_run else None

    def _scale(self, name: str) -> Mapping[str, Any]:
        scales = self.contents.get("scale", {})
        if not name and not scales:
            return {}
        if name not in scales:
            known = f"give one of {', '.join(scales)}" if scales else "the file has no scales: remove --scale"
            raise errors.UserError(f"--scale={name}: {self.path} has no [scale.{name}]: {known}.")
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
    except (ValueError, RecursionError) as error:  # includes tomllib's error, which names line and column
        raise errors.UserError(f"--sweep={path}: not TOML: {error}.") from error
    unknown = sorted(set(contents) - set(_SECTIONS))
    if unknown:
        raise errors.UserError(f"{path}: {unknown[0]}: put flags under [grid], [[runs]] or [search].")
    if not set(contents) - {"about", "scale"}:
        raise errors.UserError(f"{path}: give [grid], [[runs]] or [search].")
    for name, kind in _SECTIONS.items():
        value = contents.get(name, kind())
        items = value if kind is list else value.values() if name == "scale" and isinstance(value, dict) else []
        if not isinstance(value, kind) or not all(isinstance(item, dict) for item in items):
            form = {"runs": "[[runs]]", "scale": "[scale.NAME]"}.get(name, f"[{name}]")
            raise errors.UserError(f"{path}: {name}: write it as {form}.")
    return SweepFile(path, contents)
