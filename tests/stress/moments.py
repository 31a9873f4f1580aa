"""The program with marks of what it is doing, so that faults can hit it at a chosen moment.

    python -m tests.stress.moments FILE --method=… (the flags of run_experiment.py)

Runs run_experiment.py unchanged, except that some functions write the name of their moment to FILE when they begin, and
that of the previous moment when they end. The file is mapped into memory, so it is right to the microsecond, even for a
process that is stopped or was killed.
"""

import faulthandler
import functools
import mmap
import pathlib
import runpy
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

STARTING = "starting"
READING = "reading data"
BUILDING = "building"
RESUMING = "looking for a checkpoint"
BETWEEN = "between two of these"
TRAINING, STAGE_2 = "training", "training, stage 2"
EVALUATING = "evaluation between rounds"
SAVING = "writing a checkpoint"
RECORDING = "writing records"
JUDGING = "final evaluation"
REPORTING = "report and plots"
MOMENTS = (STARTING, READING, BUILDING, RESUMING, TRAINING, EVALUATING, RECORDING, SAVING, STAGE_2, JUDGING, REPORTING)
"""In the order in which a run comes to them."""

_FORMAT = struct.Struct("=Q48s")
_PROGRAM = pathlib.Path(__file__).parents[2] / "run_experiment.py"


class Marks:
    """A file that holds the moment, and the number of moments before it."""

    def __init__(self, path: pathlib.Path):
        """Opens the file for reading and writing; makes it if need be."""
        if not path.exists():
            path.write_bytes(_FORMAT.pack(0, STARTING.encode()))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _FORMAT.size)

    def read(self) -> tuple[int, str]:
        """The number of moments so far, and the present one."""
        count, name = _FORMAT.unpack(self._map[:])
        return count, name.rstrip(b"\0").decode(errors="replace")

    def write(self, name: str) -> None:
        self._map[:] = _FORMAT.pack(self.read()[0] + 1, name.encode())


def _marked(marks: Marks, function: Callable, moment: Callable[..., str] | str) -> Callable:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _, before = marks.read()
        if before == JUDGING:  # whatever it calls
            return function(*args, **kwargs)
        marks.write(moment if isinstance(moment, str) else moment(*args, **kwargs))
        try:
            return function(*args, **kwargs)
        finally:
            marks.write(before)

    return call


def _mark_all(marks: Marks) -> None:
    """Marks the functions that stand for moments. All modules are imported by now: this takes no time."""
    from tff_personalization.programs import client_evaluation, final_evaluation, report, rounds, training
    from tff_personalization.records import checkpoints, client_states, run_writer, saved_models
    from tff_personalization.tasks import federated_data

    def stage(program: Any, state: Any) -> str:
        return TRAINING if program.training.stage_of(state.round_number + 1).first_round == 1 else STAGE_2

    writer = run_writer.RunWriter
    for owner, name, moment in (
        (training, "run", BUILDING),
        (federated_data, "load", READING),
        (rounds, "run", BETWEEN),
        (training, "_restore", RESUMING),
        (rounds, "train", stage),
        (client_evaluation.PersonalizationEvaluator, "evaluate", EVALUATING),
        (writer, "release", RECORDING),
        (writer, "append_evaluation", RECORDING),
        (writer, "write_table", RECORDING),
        (writer, "write_json", RECORDING),
        (client_states.ClientStates, "write", RECORDING),
        (saved_models.SavedModels, "save", RECORDING),
        (checkpoints.Checkpoints, "save", SAVING),
        (final_evaluation, "evaluate", JUDGING),
        (report, "print_report", REPORTING),
    ):
        setattr(owner, name, _marked(marks, getattr(owner, name), moment))


def main() -> None:
    from absl import app

    faulthandler.register(signal.SIGUSR1)  # asked what it waits for, it says so
    marks = Marks(pathlib.Path(sys.argv[1]))
    run = app.run

    def run_marked(*args: Any, **kwargs: Any) -> None:
        _mark_all(marks)
        run(*args, **kwargs)

    app.run = run_marked
    sys.argv = [str(_PROGRAM), *sys.argv[2:]]
    runpy.run_path(str(_PROGRAM), run_name="__main__")


if __name__ == "__main__":
    main()
