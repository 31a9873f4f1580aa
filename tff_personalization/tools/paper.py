"""`make paper`: runs every experiment of the paper, then gives verdicts on its claims and writes the report.

    python -m tff_personalization.tools.paper --scale=smoke                               # minutes, synthetic writers
    python -m tff_personalization.tools.paper --scale=small --client_data=mine.npz        # hours, your own archive
    python -m tff_personalization.tools.paper --scale=medium --client_data=femnist.npz    # a day, about 300 writers
    python -m tff_personalization.tools.paper --scale=paper --cache_dir=DIR               # Federated EMNIST

The experiments are the sweeps in configs/paper/. configs/paper/SCALE.flags has the flags that their runs share; flags
of run_experiment.py on this command line take precedence. --experiments=table1,terms runs only some of them. All runs
are checked before the first one starts. Run the same command again to resume; only missing runs are made.

All runs of the first seed come before those of the second, so a study that is stopped early has every experiment. A run
that several experiments need is made once.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from analysis import claims, compared_runs, gallery, runs, study
from analysis.report import __main__ as report
from tff_personalization import errors, homes, startup
from tff_personalization.execution import child_processes, interruption
from tff_personalization.experiment import config, settings
from tff_personalization.records import files
from tff_personalization.sweeps import sweep, sweep_file

FOLDER = pathlib.Path(__file__).parents[2] / "configs" / "paper"
_DATA_FLAGS = frozenset(
    name
    for name, setting in settings.all_flags().items()
    if setting.theme == "data" and name not in ("cache_dir", "validation_clients")
)


class Paper:
    """The checked experiments."""

    def __init__(
        self,
        given: dict[str, Any],
        scale: str,
        names: Sequence[str],
        folder: pathlib.Path = FOLDER,
        runs_at_once: int = 1,
    ):
        """Reads the experiments.

        Args:
            given: flags of run_experiment.py, with their values.
            scale: the scale of the experiments.
            names: the names of the experiments; empty for all.
            folder: the folder of the experiments.
            runs_at_once: how many runs of an experiment are made at the same time.

        Raises:
            UserError: the scale or an experiment does not exist, the program would refuse one of the runs, or no
                experiment reads one of the flags.
        """
        known = {path.stem: path for path in sorted(folder.glob("*.toml"))}
        scales = sorted(path.stem for path in folder.glob("*.flags"))
        if scale not in scales:
            raise errors.UserError(f"--scale={scale}: choose from {', '.join(scales)}.")
        for name in names:
            if name not in known:
                raise errors.UserError(f"--experiments: {name!r} is unknown; choose from {', '.join(known)}.")
        shared = settings_of([f"--flagfile={folder / scale}.flags"])
        if "client_data" in given and "client_data" in shared:  # the scale's data flags are for its own data
            shared = {name: value for name, value in shared.items() if name not in _DATA_FLAGS}
        output = homes.expand(given.get("output_dir", "runs"))
        self.directory = output / f"paper-{scale}"
        self._scale = scale
        self._runs_at_once = runs_at_once
        self._failed: list[str] = []
        self.sweeps: dict[str, sweep.Sweep] = {}
        unread = set(given) - {"output_dir"}
        sweeps = {name: sweep_file.read(known[name]) for name in names or known}
        if not names:  # an experiment without this scale is left out
            sweeps = {name: file for name, file in sweeps.items() if scale in file.scales}
        for name, file in sorted(sweeps.items(), key=lambda item: item[1].about.get("order", 0)):
            own = {"output_dir", *(flag for point in file.points(scale) for flag in point.overrides)}
            if file.about.get("data") == "own":
                own |= _DATA_FLAGS
            left_open = {flag: value for flag, value in {**shared, **given}.items() if flag not in own}
            unread -= set(left_open)
            self.sweeps[name] = self._sweep(file, left_open)
        for flag in sorted(unread):
            raise errors.UserError(f"--{flag} has no effect, because the experiments set it: remove it.")

    def _sweep(self, file: sweep_file.SweepFile, given: dict[str, Any]) -> sweep.Sweep:
        values = flags.FlagValues()
        config.define_flags(values)
        arguments = [config.argument(name, value) for name, value in given.items()]
        where = [f"--scale={self._scale}", f"--output_dir={self.directory}"]
        values(["paper", *arguments, *where, f"--sweep_runs_at_once={self._runs_at_once}"])
        return sweep.Sweep(values, file, name=study.RUNS)

    def run(self) -> bool:
        """Makes missing runs. Returns whether all are finished.

        Raises:
            Interrupted: a signal stopped it, after the current run saved its work.
        """
        for name, made in self.sweeps.items():
            self._describe(name, made)
        seeds = sorted({run.directory.experiment.config.seed for made in self.sweeps.values() for run in made.runs})
        for seed in seeds:
            for name, made in self.sweeps.items():
                if not any(_is_of_seed(seed, run) for run in made.runs):
                    continue
                print(f"\n{made.file.about.get('title', name)} ({name}), seed {seed}", file=sys.stderr, flush=True)
                made.start(functools.partial(_is_of_seed, seed))
                self._complete(name, made, seed)
        missing = [run for made in self.sweeps.values() for run in made.runs if run.error]
        said = [f"{run.status.capitalize()}: {run.directory.path}: {run.error}" for run in missing]
        said += [f"Failed: {failure}" for failure in self._failed]
        print("".join(f"{line}\n" for line in said), end="", file=sys.stderr)
        return not said

    def _describe(self, name: str, made: sweep.Sweep) -> None:
        """Writes experiment.json; see `analysis/study.py`."""
        about = {"title": name, "paper": "", "claim": "", "question": "", "order": 0, **made.file.about}
        planned = [
            {"run": run.directory.name, "label": run.label, "overrides": dict(run.overrides)} for run in made.runs
        ]
        place = self.directory / name
        place.mkdir(parents=True, exist_ok=True)
        contents = {"name": name, **about, "scale": self._scale, "runs": planned}
        files.write_text(place / study.RECORD, json.dumps(contents, indent=2) + "\n")

    def _complete(self, name: str, made: sweep.Sweep, seed: int) -> None:
        """Makes the further records of a seed's finished runs that the claims need."""
        about = made.file.about
        finished = any(_is_of_seed(seed, run) and run.directory.finished for run in made.runs)
        if not finished or not {"decompose", "match", "match_examples", "gallery"} & set(about):
            return
        experiment = study.read(self.directory).by_name[name]
        entries = [entry for entry in experiment.entries if entry.seed == seed]
        for entry in entries:
            path = entry.run.directory
            if entry.label == about.get("decompose") and not (path / "decomposition.csv").exists():
                self._tool("decompose", str(path))
            if entry.label == about.get("gallery") and not (path / gallery.FILE).exists():
                self._tool("gallery", str(path))
        if "match" in about and (reference := compared_runs.selected(experiment, about["match"]).get(seed)):
            in_every_round = about.get("match_in_every_round", False)
            for entry in entries:
                if entry.label != about["match"]:
                    self._judge(entry.run, compared_runs.matched_rounds(entry.run, reference, in_every_round))
        if "match_examples" in about and (
            reference := compared_runs.selected(experiment, about["match_examples"]).get(seed)
        ):
            of_others = [entry.run for entry in entries if entry.label != about["match_examples"]]
            rounds = {compared_runs.round_of_as_many_examples(reference, run) for run in of_others}
            self._judge(reference, filter(None, rounds))

    def _judge(self, run: runs.Run, rounds: Iterable[int]) -> None:
        """Evaluates the models of these rounds on the test clients, unless that is on record."""
        missing = [str(number) for number in sorted(rounds) if not compared_runs.has_round(run, number)]
        if missing:
            self._tool("judge_rounds", str(run.directory), f"--rounds={','.join(missing)}")

    def _tool(self, name: str, *arguments: str) -> None:
        """Runs one of the tools; if it fails, notes that and continues. Ctrl-C reaches it too."""
        command = [sys.executable, "-m", f"tff_personalization.tools.{name}", *arguments]
        # Paths in flags and arguments are relative to this process's folder, which may be outside the project.
        path = os.pathsep.join(filter(None, [str(FOLDER.parents[1]), os.environ.get("PYTHONPATH")]))
        code = subprocess.run(
            child_processes.ending_with_parent(command),
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            check=False,
        ).returncode
        if code:
            self._failed.append(f"{name} {' '.join(arguments)} ended with status {code}: see above.")


def _is_of_seed(seed: int, run: sweep.Run) -> bool:
    return run.directory.experiment.config.seed == seed


def settings_of(arguments: Sequence[str]) -> dict[str, Any]:
    """The flags of run_experiment.py in the arguments, with their values."""
    values = flags.FlagValues()
    config.define_flags(values)
    with startup.plain_flag_errors():
        rest = values(["paper", *arguments])
    if len(rest) > 1:
        raise errors.UserError(f"{rest[1]!r} is not a flag: settings are given as --name=value (see --help).")
    return config.given(values)


def _main() -> None:
    scale = flags.DEFINE_string("scale", "smoke", "smoke, small, medium or paper: configs/paper/<scale>.flags.")
    experiments = flags.DEFINE_list("experiments", [], "Which experiments of configs/paper to run. Default: all.")

    at_once = flags.DEFINE_integer(
        "runs_at_once",
        1,
        "Runs made at the same time; they share the cores.",
        lower_bound=1,
    )

    def main(argv: Sequence[str]) -> int:
        with interruption.Interruption():
            paper = Paper(settings_of(argv[1:]), scale.value, experiments.value, runs_at_once=at_once.value)
            sound = paper.run()
        path = claims.write(paper.directory)
        print("\n".join(claims.lines(json.loads(path.read_bytes())["verdicts"])))
        print(f"Verdicts:  {path}")
        print(f"Report:    {report.write(paper.directory)}")
        return 0 if sound else 1

    startup.run_main(main, _parse)


def _parse(argv: Sequence[str]) -> list[str]:
    """Parses this tool's own flags, and leaves those of run_experiment.py."""
    with startup.plain_flag_errors():
        return flags.FLAGS(argv, known_only=True)


if __name__ == "__main__":
    _main()
