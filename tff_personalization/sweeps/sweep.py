"""`--sweep=FILE`: many runs, one after another or some at once, each in its own run directory, and a table at the end.

The file is TOML (`sweep_file.py`). Every key is a flag. Flags that are the same for all runs stay on the command line.

    [search]                                  # instead of [grid] and [[runs]]: rates, chosen by validation clients
    trials = 20
    client_learning_rate = [0.003, 0.3]       # between these, on a logarithmic scale
    server_learning_rate = [0.1, 2.0]

All runs are checked before the first one starts. They are made in <output_dir>/<name of the file>/. The same command
again skips the finished runs and continues with the others, also if the file has more runs now.
"""

import copy
import dataclasses
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from absl import flags

from analysis import compare_runs, metric, runs, tables
from tff_personalization import errors, homes, metrics
from tff_personalization.execution import worker_binary
from tff_personalization.experiment import config as config_lib
from tff_personalization.records import earlier_run, files, run_directory
from tff_personalization.sweeps import run_processes, search, sweep_file
from tff_personalization.tasks import federated_data, registry

_PROGRAM = pathlib.Path(__file__).parents[2] / "run_experiment.py"
# Flags of the sweep as a whole, not of its runs.
_OF_THE_SWEEP = (
    *("sweep", "scale", "sweep_runs_at_once", "sweep_stop_on_failure"),
    *("plugin", "flagfile", "output_dir", "run_name"),
)
_FIGURES = ("initial_accuracy_mean", "personalized_accuracy_mean", "gain_mean", "share_hurt", "wall_seconds")


@dataclasses.dataclass
class Run:
    """One run of a sweep: the flags that distinguish it, its directory, and its outcome.

    `earlier` is a run of the sweep that has its rounds. `alone` says that it computes them itself.
    """

    overrides: Mapping[str, Any]
    directory: run_directory.RunDirectory
    label: str = ""
    status: str = "not run"
    error: str = ""
    earlier: pathlib.Path | None = None
    alone: bool = False

    def __str__(self) -> str:
        return " ".join(config_lib.argument(name, value) for name, value in self.overrides.items()) or "(as given)"


class Sweep:
    """A sweep: its runs, checked."""

    def __init__(self, flag_values: flags.FlagValues, name: str | None = None):
        """Reads the file that --sweep names.

        Args:
            flag_values: the command line.
            name: the name of the runs' directory in --output_dir; by default the file's name.

        Raises:
            UserError: the file cannot be read, or the program would refuse one of its runs.
        """
        self.path = homes.expand(flag_values["sweep"].value)
        self._at_once = flag_values["sweep_runs_at_once"].value
        self._flag_values = flag_values
        if flag_values["run_name"].value:
            raise errors.UserError("--run_name has no effect with --sweep, which names its runs itself: remove it.")
        self.directory = homes.expand(flag_values["output_dir"].value) / (name or self.path.stem)
        self.file = sweep_file.read(self.path)
        if self.file.search is not None and flag_values["scale"].value:
            raise errors.UserError(f"--scale has no effect with {self.path}, which is a search: remove it.")
        self._trials = None if self.file.search is None else self._search(self.file.search)
        if self._trials is None:
            points = list(self.file.points(flag_values["scale"].value))
        else:
            points = [sweep_file.Point(trial.parameters.as_dict()) for trial in self._trials]
        self.runs = [self._checked(number, point) for number, point in enumerate(points, start=1)]
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
        """Runs the unfinished runs, prints the table, and writes it to sweep.csv. Returns whether all succeeded.

        Raises:
            Interrupted: a signal stopped the sweep, after the current run saved its work.
        """
        self._say(f"{self.path}: {len(self.runs)} runs in {self.directory}")
        self.start()
        self._report()
        return all(run.status == "finished" for run in self.runs)

    def start(self, select: Callable[[Run], bool] = lambda run: True) -> None:
        """Runs the unfinished ones of the selected runs, several at once. As `run`, without the table."""
        waiting = self._unfinished(select)
        self._check_places(waiting)
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
                if self._is_to_compute_itself(ended):
                    waiting.insert(0, ended.key)
                    continue
                self._note(ended)
                done += 1
                if self._flag_values["sweep_stop_on_failure"].value and any(r.status == "failed" for r in self.runs):
                    waiting.clear()
        except BaseException as error:
            processes.interrupt(error.signal_number if isinstance(error, errors.Interrupted) else signal.SIGTERM)
            raise

    def _unfinished(self, select: Callable[[Run], bool]) -> list[int]:
        """The numbers, counted from 1, of the selected runs that are not finished. Prints which are finished."""
        numbers = [number for number, run in enumerate(self.runs, start=1) if select(run)]
        for number in numbers:
            run = self.runs[number - 1]
            if run.directory.finished:
                run.status = "finished"
                self._say(f"{self._name(number)} {run}: finished already")
        return [number for number in numbers if not self.runs[number - 1].directory.finished]

    def _check_places(self, numbers: Sequence[int]) -> None:
        """Before the first run, refuses missing client data and a directory that cannot be written."""
        for number in numbers:
            run = self.runs[number - 1]
            try:
                federated_data.check_places(run.directory.experiment.config)
            except errors.UserError as error:
                raise errors.UserError(f"{self.path}: run {number} ({run}): {error}") from error
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.UserError(f"--output_dir: {self.directory} cannot be made ({error.strerror}).") from error

    def _is_to_compute_itself(self, ended: run_processes.Ended[int]) -> bool:
        """Whether a run failed because the rounds to take over were missing. It then computes them itself."""
        run = self.runs[ended.key - 1]
        if run.earlier is None or not ended.error.startswith("Error: --rounds_from="):
            return False
        self._say(f"{self._name(ended.key)} cannot use the rounds of {run.earlier.name}: it computes them itself.")
        run.earlier, run.alone = None, True
        return True

    def _note(self, ended: run_processes.Ended[int]) -> None:
        run = self.runs[ended.key - 1]
        run.status, run.error = "failed" if ended.error else "finished", ended.error
        if self._at_once > 1:
            how = f"failed: {ended.error}" if ended.error else "finished"
            self._say(f"{self._name(ended.key)} {how} after {ended.seconds:.0f} s")

    def _name(self, number: int) -> str:
        return f"[{number}/{len(self.runs)}]"

    def _next(self, waiting: Sequence[int], running: Sequence[int]) -> int | None:
        """The number of the first run that can start. A run waits while another one computes its rounds."""
        for number in waiting:
            ours = self.runs[number - 1].directory.experiment
            if not any(earlier_run.may_serve(self.runs[other - 1].directory.experiment, ours) for other in running):
                return number
        return None

    def _say(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    def _checked(self, number: int, point: sweep_file.Point) -> Run:
        """The run of a point. If the program would refuse it, raises an error with its number and flags."""
        overrides = point.overrides
        values = copy.deepcopy(self._flag_values)
        for name in overrides:
            if name not in values:
                near = errors.did_you_mean(values, name)
                raise errors.UserError(f"{self.path}: {name}: there is no such flag (see --help).{near}")
            if name in _OF_THE_SWEEP:
                raise errors.UserError(
                    f"{self.path}: {name}: is a flag of the whole sweep: give it on the command line."
                )
            if not values[name].using_default_value:
                raise errors.UserError(f"{self.path}: {name}: --{name} is given on the command line too: keep one.")
        arguments = [config_lib.argument(name, value) for name, value in overrides.items()]
        try:
            values(["sweep", *arguments, f"--output_dir={self.directory}"])
            experiment = config_lib.from_flags(values)
        except (flags.Error, errors.UserError) as error:
            what = " ".join(str(error).split())
            raise errors.UserError(f"{self.path}: run {number} ({' '.join(arguments)}): {what}") from error
        return Run(overrides, run_directory.RunDirectory(experiment), point.label)

    def _search(self, section: Mapping[str, Any]) -> list:
        """The trials of a [search]."""
        values = self._flag_values
        rounds, every = values["rounds"].value, values["rounds_per_evaluation"].value
        if not values["validation_clients"].value:
            raise errors.UserError(
                f"{self.path}: search: a search needs validation clients: give --validation_clients."
            )
        if not every or not rounds or rounds % every:
            raise errors.UserError(
                f"{self.path}: search: the last round must be evaluated: give --rounds that are a multiple of "
                f"--rounds_per_evaluation={every}."
            )
        count = section.get("trials")
        if not isinstance(count, int) or count < 1:
            raise errors.UserError(f"{self.path}: search.trials: give how many points to try, 1 or more.")
        bounds = {}
        for name, value in section.items():
            if name == "trials":
                continue
            ends = isinstance(value, list) and len(value) == 2 and all(isinstance(end, int | float) for end in value)
            if not ends or not 0 < value[0] < value[1]:
                raise errors.UserError(f"{self.path}: search.{name}: give [least, greatest], 0 < least < greatest.")
            bounds[name] = (float(value[0]), float(value[1]))
        if not bounds:
            raise errors.UserError(f"{self.path}: search: name a flag, as in client_learning_rate = [0.003, 0.3].")
        return search.suggest(
            search.problem(bounds, registry.TASKS[values["task"].value].predicts.metric), count, values["seed"].value
        )

    def _command(self, run: Run) -> list[str]:
        """The command of a run, in its own process."""
        given = {name: flag for name, flag in self._flag_values.flag_values_dict().items() if self._is_given(name)}
        values = {**given, **run.overrides}
        if "rounds_from" not in values and run.directory.experiment.config.rounds:
            run.earlier = None if run.alone else earlier_run.find(self.directory, run.directory.experiment)
            values["rounds_from"] = str(run.earlier or earlier_run.NONE)
        if self._at_once > 1 and not run.directory.experiment.config.workers:
            cores = run.directory.experiment.config.cores or worker_binary.available_cores()
            values["cores"] = max(1, cores // self._at_once)
        arguments = [config_lib.argument(name, value) for name, value in values.items()]
        return [sys.executable, str(_PROGRAM), *arguments, f"--output_dir={self.directory}"]

    def _is_given(self, name: str) -> bool:
        return name not in (set(_OF_THE_SWEEP) - {"plugin"}) and not self._flag_values[name].using_default_value

    def _report(self) -> None:
        table = pd.DataFrame([self._row(run) for run in self.runs])
        if self._trials is not None:
            self._judge(table)
        path = self.directory / "sweep.csv"
        files.write_text(path, table.to_csv(index=False))
        readable = table.drop(columns=["run_directory", "error"]).map(_cell)
        note = "Accuracies: means over test clients, or, where called so, over validation clients in the last round."
        if len(names := {_metric_of(run).name for run in self.runs}) == 1:
            (name,) = names
            readable = readable.rename(columns=lambda column: column.replace("accuracy", name))
            note = metric.named(note, _metric_of(self.runs[0]))
        else:
            note += f" The tasks have several metrics, which the columns all call accuracy: {', '.join(sorted(names))}."
        print("\n" + tables.text(readable, note))
        for run in self.runs:
            if run.status == "failed":
                print(f"Failed: {run}: {run.error}")
        if self._trials is not None:
            self._print_best()
        print(f"Table:  {path}")
        sys.stdout.flush()

    def _row(self, run: Run) -> dict[str, Any]:
        label = {"label": run.label} if any(other.label for other in self.runs) else {}
        row: dict[str, Any] = {**label, **run.overrides, "status": run.status}
        if run.status == "finished":
            record = runs.read(run.directory.path)
            if self._trials is None:  # A search must not be chosen by test clients, so its table omits them.
                row |= compare_runs.per_run([record]).iloc[0][list(_FIGURES)].to_dict()
            row |= _on_validation_clients(record)
        return {**row, "run_directory": str(run.directory.path), "error": run.error}

    def _judge(self, table: pd.DataFrame) -> None:
        for trial, measured in zip(self._trials or (), table.get(search.OBJECTIVE, [None] * len(table)), strict=True):
            search.complete(trial, None if measured is None or pd.isna(measured) else float(measured))
        if search.OBJECTIVE in table:
            ascending = not _metric_of(self.runs[0]).higher_is_better
            table.sort_values(search.OBJECTIVE, ascending=ascending, inplace=True, kind="stable")

    def _print_best(self) -> None:
        best = search.best(self._trials or (), _metric_of(self.runs[0]))
        if best is not None:
            run = self.runs[best.id - 1]
            measured = f"{search.objective(best):.4f} on validation clients"
            print(f"Best:   {run}: {measured}; its test clients: {run.directory.path}")


def _metric_of(run: Run) -> metrics.Metric:
    return registry.TASKS[run.directory.experiment.config.task].predicts.metric


def _on_validation_clients(record: Any) -> dict[str, float]:
    """Initial and personalized accuracy of the main strategy on validation clients, if the last round was evaluated."""
    summary, evaluations = record.summary, record.evaluations
    last = evaluations[
        (evaluations["split"] == "validation")
        & (evaluations["round"] == summary["rounds"])
        & (evaluations["strategy"] == summary["strategy"])
    ].set_index("epoch")["accuracy_mean"]
    epochs = {"initial": 0, "personalized": summary["personalization_epochs"]}
    return {f"validation_{name}_accuracy": float(last[epoch]) for name, epoch in epochs.items() if epoch in last}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if pd.isna(value) else f"{value:.4g}"
    return config_lib.text(value)
