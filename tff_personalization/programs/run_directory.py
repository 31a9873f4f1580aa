"""The run directory: what a run leaves behind, and what a resumed run goes on from.

config.json        every setting, the seed, the commit, versions, cores
metrics.csv        one row a round
evaluations.csv    one row per (round, split, strategy, epoch)
clients.csv        one row per (client, strategy, epoch) of the final evaluation; not if only aggregates are released
distribution.csv   histogram of the final evaluation
summary.json       the figures of the run; its presence says that the run is finished
checkpoints/       program state, the newest few
client_states/     what clients keep from round to round, for methods whose clients do
tensorboard/       round metrics for TensorBoard
worker.log         what TFF's worker process said
"""

import asyncio
import collections
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import pandas as pd
import tensorflow_federated as tff

from tff_personalization import errors, identity
from tff_personalization.programs import config as config_lib

_PACKAGES = ("tensorflow", "tensorflow-federated", "numpy", "pandas")
_KEPT_CHECKPOINTS = 3


class RunDirectory:
    """A run directory that belongs to one experiment."""

    def __init__(self, experiment: config_lib.Experiment):
        """Names the directory and checks that it is this experiment's, if an earlier start has made it.

        Raises:
            UserError: it belongs to a run with other settings.
        """
        self.experiment = experiment
        self.name = experiment.run_name()
        self.path = pathlib.Path(os.path.expanduser(experiment.config.output_dir)) / self.name
        self._check_same_experiment()
        self._managers: list[tff.program.ReleaseManager] = []

    def create(self) -> None:
        """Makes the directory ready to be written to; what an earlier start saved stays.

        Raises:
            UserError: it cannot be written.
        """
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            self.worker_log = (self.path / "worker.log").open("ab")
        except OSError as error:
            raise errors.UserError(
                f"--output_dir={self.experiment.config.output_dir}: cannot write {self.path} ({error.strerror}); "
                "give a directory that you may write to."
            ) from error
        for leftover in (*self.path.glob("*_temp[0-9]*"), *(self.path / "checkpoints").glob("*_temp[0-9]*")):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()  # of a start that was killed
        self._states = tff.program.FileProgramStateManager(
            str(self.path / "checkpoints"), prefix="round_", keep_total=_KEPT_CHECKPOINTS, keep_first=False
        )

    @property
    def finished(self) -> bool:
        return (self.path / "summary.json").exists()

    def _check_same_experiment(self) -> None:
        try:
            earlier = json.loads((self.path / "config.json").read_text())["flags"]
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError, KeyError) as error:
            raise errors.UserError(
                f"{self.path / 'config.json'} is damaged ({type(error).__name__}): move {self.path} away, or choose "
                "another --run_name."
            ) from error
        now = json.loads(json.dumps(self.experiment.as_json()))
        differ = [
            name
            for name in sorted({*earlier, *now})
            if name not in identity.WITHOUT_EFFECT_ON_NUMBERS and earlier.get(name) != now.get(name)
        ]
        if differ:
            changes = ", ".join(f"{name} was {earlier.get(name)!r}, is {now.get(name)!r}" for name in differ)
            raise errors.UserError(
                f"{self.path} holds a run with other settings ({changes}): choose another --run_name, or the same "
                "settings to go on with it."
            )

    def write_config(
        self, task: str, source: str, synthetic: bool, machine: Mapping[str, int], clients: Mapping[str, int]
    ) -> None:
        """Writes config.json, unless an earlier start did.

        Args:
            task: the task's name.
            source: what the data is, in words.
            synthetic: whether it was generated.
            machine: how the work is laid out: cores, threads a client, clients a call.
            clients: how many clients train, validate and test.
        """
        if (self.path / "config.json").exists():
            return
        self.write_json(
            "config.json",
            {
                "run_name": self.name,
                "method": self.experiment.config.method,
                "task": task,
                "source": source,
                "synthetic": synthetic,
                "clients": dict(clients),
                "seed": self.experiment.config.seed,
                "flags": self.experiment.as_json(),
                "git_commit": git_commit(),
                "versions": {
                    "python": platform.python_version(),
                    **{name: importlib.metadata.version(name) for name in _PACKAGES},
                },
                **machine,
            },
        )

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file whole or not at all."""
        self._write_text(name, json.dumps(value, indent=2) + "\n")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Writes a CSV file whole or not at all."""
        self._write_text(name, table.to_csv(index=False))

    def append_evaluation(self, table: pd.DataFrame, round_number: int, split: str) -> None:
        """Adds an evaluation's rows to evaluations.csv, in place of any it has of the same or of later rounds."""
        path = self.path / "evaluations.csv"
        text = table.to_csv(index=False)
        if path.exists():
            earlier = pd.read_csv(path, dtype=str, keep_default_na=False)
            rounds = earlier["round"].astype(int)
            keep = (rounds < round_number) | ((rounds == round_number) & (earlier["split"] != split))
            text = earlier[keep].to_csv(index=False) + table.to_csv(index=False, header=False)
        self._write_text("evaluations.csv", text)

    def _write_text(self, name: str, text: str) -> None:
        temporary = self.path / f"{name}_temp0"
        temporary.write_text(text)
        os.replace(temporary, self.path / name)

    def release(self, metrics: Mapping[str, Any], round_number: int) -> None:
        """Releases a round's metrics to metrics.csv and TensorBoard, in place of any of that round or later ones."""
        if not self._managers:
            self._managers = [
                # WRITE replaces the file as a whole: a kill cannot leave half a row.
                tff.program.CSVFileReleaseManager(
                    str(self.path / "metrics.csv"), tff.program.CSVSaveMode.WRITE, key_fieldname="round"
                ),
                tff.program.TensorBoardReleaseManager(str(self.path / "tensorboard")),
            ]
        numbers = collections.OrderedDict((key, value) for key, value in metrics.items() if not isinstance(value, str))
        csv, tensorboard = self._managers
        asyncio.run(csv.release(collections.OrderedDict(metrics), round_number))
        asyncio.run(tensorboard.release(numbers, round_number))

    def save(self, state: Any, round_number: int) -> None:
        """Saves the program state after a round; the newest few are kept."""
        if round_number not in self.saved_rounds():
            asyncio.run(self._states.save(state, round_number))

    def saved_rounds(self) -> list[int]:
        """The rounds after which a checkpoint exists, in order."""
        return asyncio.run(self._states.get_versions()) or []

    def load(self, round_number: int, structure: Any) -> Any:
        """The program state saved after a round, in the given structure."""
        return asyncio.run(self._states.load(round_number, structure))


def git_commit() -> str:
    """The commit of the code, with "+changes" if files differ from it, or "unknown" outside a repository."""
    here = pathlib.Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
