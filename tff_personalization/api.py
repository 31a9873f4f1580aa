"""Runs from Python, with the settings, checks and files of the command. `tff_personalization` has these functions too.

    import tff_personalization as tp

    run = tp.run(method="fed_avg", client_data="mine.npz", rounds=50, seed=1)
    run.clients                                           # pandas: one row for each client, strategy and epoch
    run.keras_model("best")                               # or run.global_weights("best").model, NumPy arrays
    tp.evaluate(run, strategies=["fine_tune", "ditto"])   # the same, for other strategies
    tp.compare([run, tp.open_run("runs/other")]).plot()

A setting is a flag's name and value. A refused value raises `errors.UserError` with the command's message. Call these
functions on the main thread, also in Jupyter. Ctrl-C raises `KeyboardInterrupt`, and the same call resumes the run.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis import accuracy_distributions, compare_methods
from tff_personalization import errors
from tff_personalization.execution import interruption
from tff_personalization.experiment import config
from tff_personalization.experiment import settings as settings_lib
from tff_personalization.programs import client_evaluation, report, training
from tff_personalization.records import finished_run, run_records


def run(**settings: Any) -> finished_run.FinishedRun:
    """Runs an experiment like `run_experiment.py` with the same flags, or resumes it. Opens it if it is finished.

    >>> made = run(client_data="digits", model="linear", rounds=2, test_clients=5, rounds_per_evaluation=0,
    ...            output_dir="runs", run_name="small", plots=False)
    >>> sorted(made.clients["strategy"].unique()), made.summary["rounds"]
    (['fine_tune', 'fine_tune_head'], 2)

    Args:
        settings: values by the names of their flags; lists for flags with commas. Other settings have their defaults.

    Raises:
        UserError: a setting is unknown, out of range or unread, or the data cannot be used.
        KeyboardInterrupt: Ctrl-C was pressed. All results so far are saved.
    """
    for name in config.OF_SWEEPS:
        if name in settings:
            raise errors.UserError(
                f"{name} is for many runs: make them with the command, run_experiment.py --sweep=FILE."
            )
    with _program() as interrupt:
        directory = training.run(config.from_settings(settings), interrupt)
        if directory.experiment.config.plots:
            report.draw(directory)
    return open_run(directory.path.resolve())


def open_run(directory: str | os.PathLike[str], client_data: str | None = None) -> finished_run.FinishedRun:
    """Opens a finished run; `client_data` is its data's new place, if moved. UserError if it cannot be opened."""
    return finished_run.FinishedRun.open(directory, client_data)


def evaluate(
    opened: finished_run.FinishedRun, round_number: int | str = finished_run.LAST, **settings: Any
) -> pd.DataFrame:
    """Evaluates a global model of a finished run on the run's test clients again. Writes nothing.

    >>> made = run(client_data="digits", model="linear", rounds=2, test_clients=5, rounds_per_evaluation=0,
    ...            output_dir="runs", run_name="small", plots=False)
    >>> found = evaluate(made, strategies=["fine_tune_biases"], personalization_epochs=1)
    >>> found.groupby(["strategy", "epoch"])["client"].count().to_dict()
    {('fine_tune_biases', 0): 5, ('fine_tune_biases', 1): 5}

    Args:
        opened: the run.
        round_number: "last", "best" (on validation clients), or the number of a round.
        settings: how to personalize, if different from the run: strategies, epochs, optimizer, batch size, …

    Returns:
        One row for each client, strategy and epoch, as `FinishedRun.clients`.

    Raises:
        UserError: a setting is refused, or would change the training.
    """
    given = {**opened.config["given"], "client_data": opened.experiment.config.client_data}
    trained, settings = opened.experiment.values, {"evaluation_release": "records", **settings}
    if "strategies" in settings:
        # The flags of the run's other strategies would be refused, because they have no effect.
        without = _without(given, settings_lib.unread("strategies", {**trained, "strategies": []}))
        values = config.from_settings({**without, **settings}).values
        given = _without(given, settings_lib.unread("strategies", values))
    experiment = config.from_settings({**given, **settings})
    wanted = experiment.values
    of_end = {name for name, flag in settings_lib.all_flags().items() if flag.theme == "personalization"}
    choices, method = settings_lib.choices(), opened.experiment.config.method
    for group in choices["strategies"].values():
        of_end |= group.flags().keys() - choices["method"][method].flags().keys()
    changed = [name for name in sorted(settings.keys() - of_end) if wanted[name] != trained[name]]
    if changed:
        raise errors.UserError(
            f"{changed[0]}={settings[changed[0]]!r} is a setting of training: start a new run for it."
        )
    weights, number = opened.global_weights(round_number), opened.round_number(round_number)
    evaluator = client_evaluation.PersonalizationEvaluator(experiment, opened.model, opened.data, weights)
    with _program(), opened.computing():
        found = evaluator.evaluate(weights, opened.data.split.test, number, seed=experiment.config.evaluation_seed)
    assert found.clients is not None
    return found.clients


def _without(given: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A comparison of runs.

    Attributes:
        runs: the runs, the reference first.
        table: see `analysis.compare_methods.compare`.
    """

    runs: tuple[run_records.Run, ...]
    table: pd.DataFrame

    def plot(self) -> Figure:
        """The distribution of accuracy over clients in each run, before and after personalization."""
        return accuracy_distributions.plot(self.runs)

    def _repr_html_(self) -> str:
        return self.table.to_html()


def compare(runs: Sequence[run_records.Run | str | os.PathLike[str]]) -> Comparison:
    """Compares runs with the first one, client by client, over their common seeds.

    Args:
        runs: opened runs, or their directories.

    Raises:
        UserError: there are no runs, or they differ in test clients or seeds.
    """
    if isinstance(runs, str | os.PathLike | run_records.Run) or not runs:
        raise errors.UserError("compare: give a list of runs or of their directories, the reference first.")
    opened = tuple(one if isinstance(one, run_records.Run) else run_records.read(one) for one in runs)
    return Comparison(opened, compare_methods.compare(opened))


@contextlib.contextmanager
def _program() -> Iterator[interruption.Interruption]:
    """The setup of a computation in a process that has other work; removes it afterwards."""
    if threading.current_thread() is not threading.main_thread():
        raise errors.UserError(
            "a run starts TFF's worker, which ends when its thread ends: call this on the main thread."
        )
    # An event loop runs a notebook's cells; TFF and the records need their own loops meanwhile.
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    told = logging.getLogger("tensorflow")
    level = told.level
    told.setLevel(logging.ERROR)  # as in the command, because it names each file of a checkpoint
    try:
        with interruption.Interruption() as interrupt:
            yield interrupt
    except errors.Interrupted as interrupted:
        if interrupted.signal_number == signal.SIGINT:
            raise KeyboardInterrupt from interrupted
        raise
    finally:
        told.setLevel(level)
        asyncio._set_running_loop(loop)
