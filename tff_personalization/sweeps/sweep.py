"""`--sweep=FILE`: many runs, one after another or some at once, each in its own run directory, and a table at the end.

The file is TOML (`sweep_file.py`). Every key is a flag. Flags that are the same for all runs stay on the command line.
`search.py` first finds the flags that the file wants to be chosen.

All runs are checked before the first one starts. They are made in <output_dir>/<name of the file>/. The same command
again skips the finished runs and continues with the others, also if the file has more runs now.
"""

import dataclasses
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from absl import flags

from analysis import compare_runs, compared_runs, metric, runs, tables
from tff_personalization import errors, homes, metrics
from tff_personalization.execution import worker_binary
from tff_personalization.experiment import config as config_lib
from tff_personalization.records import earlier_run, files, run_directory, run_writer
from tff_personalization.sweeps import run_processes, sweep_file
from tff_personalization.tasks import federated_data, registry

IN_PROGRESS = "in progress"
"""The status of a run that another process is making."""
_PROGRAM = pathlib.Path(__file__).parents[2] / "run_experiment.py"
# Flags of the sweep as a whole, not of its runs.
_OF_THE_SWEEP = (*config_lib.OF_SWEEPS, "plugin", "flagfile", "output_dir", "run_name")
_NAMES_ITSELF = "a sweep names its runs itself: remove it"
_FIGURES = ("initial_accuracy_mean", "personalized_accuracy_mean", "gain_mean", "share_hurt", "wall_seconds")


@dataclasses.dataclass
class Run:
    """One run of a sweep: the flags that distinguish it, its directory, and its outcome.

    `own` are flags that take precedence over the command line; None takes one away.
    """

    overrides: Mapping[str, Any]
    directory: run_directory.RunDirectory
    label: str = ""
    own: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    status: str = "not run"
    error: str = ""

    def __str__(self) -> str:
        return " ".join(config_lib.argument(name, value) for name, value in self.overrides.items()) or "(as given)"

    @property
    def metric(self) -> metrics.Metric:
        """The metric of its task."""
        return registry.TASKS[self.directory.experiment.config.task].predicts.metric


class Sweep:
    """A sweep: its runs, checked."""

    def __init__(
        self,
        flag_values: flags.FlagValues,
        file: sweep_file.SweepFile,
        points: Iterable[sweep_file.Point] | None = None,
        name: str | None = None,
        distinct: bool = True,
    ):
        """Checks the runs.

        Args:
            flag_values: the command line.
            file: the sweep's file.
            points: the runs; by default those of the file.
            name: the name of the runs' directory in --output_dir; by default the file's name.
            distinct: whether two runs with the same settings are refused. Otherwise the run is made once.

        Raises:
            UserError: the program would refuse a run.
        """
        self.file, self.path = file, file.path
        self._at_once = flag_values["sweep_runs_at_once"].value
        self._flag_values, self._given = flag_values, config_lib.given(flag_values)
        if flag_values["run_name"].value:
            raise errors.UserError(f"--run_name has no effect with --sweep: {_NAMES_ITSELF}.")
        self.directory = homes.expand(flag_values["output_dir"].value) / (name or self.path.stem)
        if points is None:
            points = file.points(flag_values["scale"].value)
        self.runs = [self._checked(number, point) for number, point in enumerate(points, start=1)]
        if distinct:
            self.check_distinct()

    def check_distinct(self) -> None:
        """Raises UserError if two runs have the same name."""
        by_name: dict[str, int] = {}
        for number, run in enumerate(self.runs, start=1):
            earlier = by_name.setdefault(run.directory.name, number)
            if earlier != number:
                one, other = (of.directory.experiment.config.client_data for of in (self.runs[earlier - 1], run))
                if one != other:
                    raise errors.UserError(
                        f"{self.path}: runs {earlier} and {number} differ only in the folder of their "
                        f"--client_data ({one}, {other}), which does not make another run: give the files different "
                        "names."
                    )
                raise errors.UserError(f"{self.path}: runs {earlier} and {number} are the same ({run}): leave one out.")

    def run(self) -> bool:
        """Runs the unfinished runs, prints the table, and writes it to sweep.csv. Returns whether all are finished.

        Raises:
            Interrupted: a signal stopped the sweep, after the current run saved its work.
        """
        self._say(f"{self.path}: {len(self.runs)} runs in {self.directory}")
        self.start()
        self._report()
        return all(run.status == "finished" for run in self.runs)

    def start(self, select: Callable[[Run], bool] = lambda run: True) -> None:
        """Runs the unfinished ones of the selected runs, several at once. As `run`, without the table.

        At the end it looks again at the runs that another process was making.
        """
        waiting = [] if self.stopping else self._unfinished(select)
        self.check_places(waiting)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.UserError(
                f"--output_dir: {self.directory} cannot be made ({error.strerror}): give a directory that you may "
                "write to."
            ) from error
        processes = run_processes.RunProcesses[int](self._at_once)
        started, done = time.monotonic(), 0
        try:
            while waiting or processes.running:
                while not processes.full and (number := self._next(waiting, processes.running)):
                    minutes = (time.monotonic() - started) / 60 / done * len(waiting) if done else None
                    waiting.remove(number)
                    to_go = "" if minutes is None else f" (about {minutes:.0f} min to go)"
                    self._say(f"{self._name(number)} {self.runs[number - 1]}{to_go}")
                    processes.start(number, self._command(self.runs[number - 1]), self._name(number))
                ended = processes.wait()
                self._note(ended)
                done += 1
                if self.stopping:
                    waiting.clear()
        except BaseException as error:
            processes.interrupt(error.signal_number if isinstance(error, errors.Interrupted) else signal.SIGTERM)
            raise
        for run in self.runs:
            if run.status == IN_PROGRESS and run.directory.finished:
                run.status, run.error = "finished", ""

    @property
    def stopping(self) -> bool:
        """Whether no more runs start, because one has failed."""
        return self._flag_values["sweep_stop_on_failure"].value and any(run.status == "failed" for run in self.runs)

    def _unfinished(self, select: Callable[[Run], bool]) -> list[int]:
        """The numbers, counted from 1, of the selected runs that are left to make. Prints which are finished."""
        numbers = [number for number, run in enumerate(self.runs, start=1) if select(run) and run.status != "failed"]
        for number in numbers:
            run = self.runs[number - 1]
            if run.directory.finished:
                run.status = "finished"
                self._say(f"{self._name(number)} {run}: finished already")
        return [number for number in numbers if not self.runs[number - 1].directory.finished]

    def check_places(self, numbers: Sequence[int] | None = None) -> None:
        """Refuses missing client data of the runs with these numbers, counted from 1; by default of all."""
        for number in range(1, len(self.runs) + 1) if numbers is None else numbers:
            run = self.runs[number - 1]
            try:
                federated_data.check_places(run.directory.experiment.config)
            except errors.UserError as error:
                raise errors.UserError(f"{self.path}: run {number} ({run}): {error}") from error

    def _note(self, ended: run_processes.Ended[int]) -> None:
        run = self.runs[ended.key - 1]
        if run_writer.IN_USE in ended.error:
            run.status, run.error = IN_PROGRESS, f"another process is making it, in {run.directory.path}"
        elif ended.error or run.directory.finished:
            run.status, run.error = "failed" if ended.error else "finished", ended.error
        else:
            run.status = "failed"
            run.error = (
                f"it is not in {run.directory.path}, because a plugin or a file of client ids changed after the sweep "
                "began: run the same command again"
            )
        if self._at_once > 1:
            why = f": {run.error}" if run.error else ""
            self._say(f"{self._name(ended.key)} {run.status} after {ended.seconds:.0f} s{why}")

    def _name(self, number: int) -> str:
        return f"[{number}/{len(self.runs)}]"

    def _next(self, waiting: Sequence[int], running: Sequence[int]) -> int | None:
        """The number of the first run that can start. A run waits while another one computes its rounds."""
        for number in waiting:
            ours = self.runs[number - 1].directory
            others = [self.runs[other - 1].directory for other in running]
            if not any(
                other.path == ours.path or earlier_run.may_serve(other.experiment, ours.experiment) for other in others
            ):
                return number
        return None

    def _say(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def _checked(self, number: int, point: sweep_file.Point) -> Run:
        """The run of a point. If the program would refuse it, raises an error with its number and flags."""
        values = self._flag_values
        for name in point.overrides:
            if name not in values:
                near = errors.did_you_mean(values, name)
                raise errors.UserError(f"{self.path}: {name}: there is no such flag (see --help).{near}")
            if name == "run_name":
                raise errors.UserError(f"{self.path}: run_name: {_NAMES_ITSELF}.")
            if name in _OF_THE_SWEEP:
                raise errors.UserError(
                    f"{self.path}: {name}: is a flag of the whole sweep: give it on the command line."
                )
            if not values[name].using_default_value:
                raise errors.UserError(f"{self.path}: {name}: --{name} is given on the command line too: keep one.")
        own = {**point.overrides, **point.own}
        try:
            experiment = config_lib.from_settings({**self._given, **own, "output_dir": self.directory})
            return Run(point.overrides, run_directory.RunDirectory(experiment), point.label, point.own)
        except errors.UserError as error:
            arguments = " ".join(config_lib.argument(name, value) for name, value in own.items() if value is not None)
            raise errors.UserError(f"{self.path}: run {number} ({arguments}): {error}") from error

    def _command(self, run: Run) -> list[str]:
        """The command of a run, in its own process."""
        given = {name: flag for name, flag in self._flag_values.flag_values_dict().items() if self._is_given(name)}
        values = {**given, **run.overrides, **run.own}
        if self._at_once > 1 and not run.directory.experiment.config.workers:
            cores = run.directory.experiment.config.cores or worker_binary.available_cores()
            values["cores"] = max(1, cores // self._at_once)
        arguments = [config_lib.argument(name, value) for name, value in values.items() if value is not None]
        return [sys.executable, str(_PROGRAM), *arguments, f"--output_dir={self.directory}"]

    def _is_given(self, name: str) -> bool:
        return name not in (set(_OF_THE_SWEEP) - {"plugin"}) and not self._flag_values[name].using_default_value

    def _report(self) -> None:
        table = pd.DataFrame([self._row(run) for run in self.runs])
        readable = table.drop(columns=["run_directory", "error"]).map(cell)
        note = "Accuracies: means over test clients, or, where called so, over validation clients in the last round."
        if len(names := {run.metric.name for run in self.runs}) == 1:
            (name,) = names
            readable = readable.rename(columns=lambda column: column.replace("accuracy", name))
            note = metric.named(note, self.runs[0].metric)
        else:
            note += f" The tasks have several metrics, which the columns all call accuracy: {', '.join(sorted(names))}."
        print("\n" + tables.text(readable, note))
        for run in self.runs:
            if run.error:
                print(f"{run.status.capitalize()}: {run}: {run.error}")
        sys.stdout.flush()
        path = self.directory / "sweep.csv"
        files.write_text(path, table.to_csv(index=False))
        print(f"Table:  {path}", flush=True)

    def _row(self, run: Run) -> dict[str, Any]:
        label = {"label": run.label} if any(other.label for other in self.runs) else {}
        figures: dict[str, Any] = {}
        if run.status == "finished":
            try:
                figures = _figures(runs.read(run.directory.path))
            except errors.UserError as error:  # a record was damaged; the other runs still have their rows
                run.status, run.error = "failed", str(error)
        row = {**label, **run.overrides, "status": run.status, **figures}
        there = run.status != "failed" or run.directory.path.exists()
        return {**row, "run_directory": str(run.directory.path) if there else "", "error": run.error}


def _figures(record: runs.Run) -> dict[str, Any]:
    """The figures of a finished run in the table."""
    found = compare_runs.per_run([record]).iloc[0][list(_FIGURES)].to_dict()
    curve, last = compared_runs.validation_curve(record), record.summary["rounds"]
    if last in curve.index:
        found |= curve.loc[last].dropna().add_prefix("validation_").add_suffix("_accuracy").to_dict()
    return found


def cell(value: Any) -> str:
    """A value as it is shown in a table."""
    if isinstance(value, float):
        return tables.number(value, ".4g")
    return config_lib.text(value)
