"""The origin of an experiment's figures: flags, seeds, commits, data, versions, time."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from analysis import run_labels
from analysis import study as study_lib
from analysis.report import configurations as configurations_lib


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The provenance of an experiment's finished runs.

    Attributes:
        facts: common or summed values of the runs, by their titles.
        flags: for each configuration its flags that differ from the defaults, as on the command line, and the folders
            of its runs.
    """

    facts: dict[str, str]
    flags: list[tuple[str, str, str]]


def of(
    study: study_lib.Study,
    experiment: study_lib.Experiment,
    configurations: Iterable[configurations_lib.Configuration],
) -> Provenance:
    """The provenance of an experiment's runs."""
    runs = experiment.runs
    planned = "" if experiment.planned is None else f" of {experiment.planned} planned"
    begun = f", {experiment.unfinished} unfinished, not shown" if experiment.unfinished else ""
    starts = [start for run in runs for start in run.config.get("starts") or [run.config]]  # a run may have several
    versions = [f"{name} {version}" for start in starts for name, version in start.get("versions", {}).items()]
    seconds = sum(run.summary["times"]["wall_seconds"] for run in runs)
    facts = {
        "finished runs": f"{len(runs)}{planned}{begun}",
        "scale": experiment.scale,
        "data": _together(run.source for run in runs),
        "SHA-256 of the data": _together(run.config.get("data_sha256", "") for run in runs),
        "test clients": _together(run.summary["test_clients"] for run in runs),
        "seeds": _together(sorted({run.config["seed"] for run in runs})),
        "commit of the code": _together(start.get("git_commit", "") for start in starts),
        "versions": _together(versions),
        "cores": _together(start.get("cores", "") for start in starts),
        "wall time": f"{seconds:,.0f} s in all runs together ({seconds / 3600:.1f} h), without reused rounds",
    }
    flags = [
        (
            configuration.label,
            " ".join(
                f"--{name}={run_labels.as_text(value)}"
                for name, value in run_labels.given(configuration.first).items()
                if name not in ("seed", "run_name", "output_dir")
            ),
            ", ".join(study.key(run) for run in configuration.runs),
        )
        for configuration in configurations
    ]
    return Provenance({name: value for name, value in facts.items() if value}, flags)


def _together(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values if value != ""))
