"""Copies what finished runs measured to a folder that can be published: no checkpoints, no paths of the machine.

    python -m analysis.share_runs RUN [RUN ...] --to=docs/results/mine
    python -m analysis.share_runs STUDY --to=docs/results/mine          # what `make paper` wrote, its verdicts included

Each run becomes a folder of its name with config.json, summary.json and its tables; every other script here reads it
like the run itself. Paths of the machine are cut to their last part.
"""

import functools
import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from absl import flags

from analysis import command_line, study
from analysis import runs as runs_lib
from tff_personalization.errors import UserError

TABLES = (
    *("metrics.csv", "evaluations.csv", "clients.csv", "by_round.csv", "distribution.csv", "choice.csv", "k_shot.csv"),
    *("decomposition.csv", "chosen_clients.csv"),
)


def share(run: runs_lib.Run, to: pathlib.Path) -> pathlib.Path:
    """Copies a finished run's records into a folder of its name below `to`, and returns that folder.

    Raises:
        UserError: the run is unfinished, or the folder holds another run.
    """
    target = to / run.name
    summary, config = run.summary, without_paths(run.config)
    if (target / "config.json").exists() and runs_lib.read(target).config != config:
        raise UserError(f"--to: {target} holds another run; give another folder, or remove it")
    target.mkdir(parents=True, exist_ok=True)
    for name, contents in (("config.json", config), ("summary.json", summary)):
        (target / name).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    for name in TABLES:
        if (run.directory / name).exists():
            shutil.copyfile(run.directory / name, target / name)
    return target


def share_study(of: study.Study, to: pathlib.Path) -> pathlib.Path:
    """Copies a study's experiments, finished runs and verdicts into the folder `to`, and returns it.

    Raises:
        UserError: the folder holds other runs of these names.
    """
    for experiment in of.experiments:
        for entry in experiment.entries:
            share(entry.run, to / study.RUNS)
        contents = json.loads((of.directory / experiment.name / "experiment.json").read_text(encoding="utf-8"))
        (to / experiment.name).mkdir(parents=True, exist_ok=True)
        text = json.dumps(without_paths(contents), indent=2) + "\n"
        (to / experiment.name / "experiment.json").write_text(text, encoding="utf-8")
    if (of.directory / "verdicts.json").exists():
        shutil.copyfile(of.directory / "verdicts.json", to / "verdicts.json")
    return to


def without_paths(value: Any) -> Any:
    """A value of a record with each path of the machine cut to its last part."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return os.path.basename(value.rstrip("/")) if isinstance(value, str) and os.path.isabs(value) else value


def _main() -> None:
    # Defined when the script starts and not on import, so that a program that imports it keeps its own flags.
    to = flags.DEFINE_string("to", None, "The folder into which the runs' folders are put.", required=True)

    def main(arguments: Sequence[str]) -> None:
        target = pathlib.Path(to.value)
        studies = [place for place in arguments if study.is_study(place)]
        runs = [place for place in arguments if place not in studies]
        found = [study.read(place) for place in studies]
        finished = runs_lib.read_all(runs) if runs or not studies else []
        for copy in (
            *(functools.partial(share_study, of) for of in found),
            *(functools.partial(share, run) for run in finished),
        ):
            try:
                print(copy(target))
            except OSError as error:
                raise UserError(f"--to: {to.value} cannot be written ({error.strerror}); give another folder") from None

    command_line.run_script(main)


if __name__ == "__main__":
    _main()
