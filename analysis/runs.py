"""The runs that a command of the analysis is given."""

from collections.abc import Iterable, Sequence

from tff_personalization.errors import UserError
from tff_personalization.records import places
from tff_personalization.records.run_records import NotRecordedError, Run, read

__all__ = ["NotRecordedError", "Run", "labels", "read", "read_all"]


def read_all(directories: Iterable[places.Named]) -> list[Run]:
    """The runs in `directories`, in that order; UserError when there are none or one is not a run directory.

    A folder or zip file of runs stands for all of them, by name. A directory named "plots" that is no run is ignored:
    plots of several runs are written beside the runs, where a pattern such as `runs/*` finds them the next time.
    """
    paths: list[places.Place] = []
    for path in map(places.place, directories):
        if (path / "config.json").exists():
            paths.append(path)
        elif path.name != "plots" or not path.is_dir():
            paths += places.folders_with(path, "config.json") or [path]
    if not paths:
        raise UserError("RUN: no run directory given; give at least one, as in python -m analysis.plot_all RUN")
    repeated = sorted({str(path) for path in paths if paths.count(path) > 1})
    if repeated:
        raise UserError(f"{repeated[0]}: given twice; give each run directory once")
    return [read(path) for path in paths]


def labels(runs: Sequence[Run]) -> list[str]:
    """What to call each run in a legend or table: its name, or its directory where two runs share a name."""
    names = [run.name for run in runs]
    return [str(run.directory) if names.count(run.name) > 1 else run.name for run in runs]
