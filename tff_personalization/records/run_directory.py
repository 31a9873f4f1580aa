"""The run directory: what a run leaves behind, and what a resumed run goes on from.

config.json        every setting, the seed, the commit, versions, cores; the latter of every start that went on with it
metrics.csv        one row a round
evaluations.csv    one row per (round, split, strategy, epoch)
clients.csv        one row per (client, strategy, epoch) of the final evaluation; not if only aggregates are released
by_round.csv       one row per (round, client, epoch): the main strategy with the model of another round than the last
distribution.csv   histogram of the final evaluation
choice.csv         what was judged on validation clients in the end, and what of it was chosen; if there are any
chosen_clients.csv one row per (client, epoch): what was chosen, at epoch 0 and at the chosen one
k_shot.csv         one row per (number of train examples, strategy, epoch); with --personalization_examples
summary.json       the figures of the run; its presence says that the run is finished
checkpoints/       program state and its checksums, the newest few
models/            the global model after the last round, and after some others
client_states/     what clients keep from round to round, for methods whose clients do
tensorboard/       round metrics, and distributions over clients, for TensorBoard
worker.log         what TFF's worker process said
lock               held by the process that writes here
"""

import collections
import errno
import fcntl
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import pandas as pd
import tensorflow_federated as tff

from tff_personalization import errors, identity
from tff_personalization.experiment import config as config_lib
from tff_personalization.experiment import settings
from tff_personalization.records import checkpoints, coroutines, earlier_run, files, saved_models
from tff_personalization.tasks import federated_data

_PACKAGES = ("tensorflow", "tensorflow-federated", "numpy", "pandas")
_FILE = "client_data_file"
_OF_A_START = ("git_commit", "versions", "cores")


class RunDirectory:
    """A run directory that belongs to one experiment."""

    def __init__(self, experiment: config_lib.Experiment):
        """Names the directory and checks that it is this experiment's, if an earlier start has made it.

        Raises:
            UserError: it belongs to a run with other settings, or is finished and was made from another file.
        """
        self.experiment = experiment
        self.name = experiment.run_name()
        self.path = pathlib.Path(os.path.expanduser(experiment.config.output_dir)) / self.name
        if (record := self._record()) is not None:
            self._check_same_experiment(record)
            if self.finished:
                self._check_same_file(record)
        self._managers: list[tff.program.ReleaseManager] = []

    def create(self) -> None:
        """Makes the directory ready to be written to; what an earlier start saved stays.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            self.checkpoints = checkpoints.Checkpoints(self.path / "checkpoints")
            self.models = saved_models.SavedModels(self.path / "models")
            self.worker_log = (self.path / "worker.log").open("ab")
        except OSError as error:
            raise errors.UserError(
                f"--output_dir={self.experiment.config.output_dir}: cannot write {self.path} ({error.strerror}); "
                "give a directory that you may write to."
            ) from error
        files.clear_leftovers(self.path)

    def _locked(self) -> IO[str]:
        """A file of the directory that this process holds until it ends, however it ends; refused if another does."""
        file = (self.path / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            file.seek(0)
            process = file.read().strip()
            raise errors.UserError(
                f"{self.path} is being written by another process{f' ({process})' if process else ''}: wait for it, or "
                "choose another --run_name."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        return file

    @property
    def finished(self) -> bool:
        return (self.path / "summary.json").exists()

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is a checkpoint to continue from."""
        return any((self.path / "checkpoints").glob("round_*.json"))

    def _record(self) -> dict[str, Any] | None:
        """What config.json has, if an earlier start has written it; refused if it is damaged."""
        try:
            record = json.loads((self.path / "config.json").read_text())
            return {**record, "flags": dict(record["flags"]), "starts": list(record.get("starts", ()))}
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise errors.UserError(
                f"{self.path / 'config.json'} is damaged ({type(error).__name__}): move {self.path} away, or choose "
                "another --run_name."
            ) from error

    def _check_same_experiment(self, record: Mapping[str, Any]) -> None:
        defaults = settings.defaults()
        before, now = (
            {**defaults, **identity.of(of, defaults)}
            for of in (record["flags"], json.loads(json.dumps(self.experiment.as_json())))
        )
        differ = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        if differ:
            changes = ", ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in differ)
            raise errors.UserError(
                f"{self.path} holds a run with other settings ({changes}): choose another --run_name, or the same "
                "settings to resume it."
            )

    def _check_same_file(self, record: Mapping[str, Any]) -> None:
        """Refuses a finished run whose client data came from another file of the same name, if it is known from which.

        What is not finished reads the data, and is refused by its contents.
        """
        earlier, now = record.get(_FILE), self._fingerprint() if _FILE in record else None
        if earlier and now and earlier != now:
            raise errors.UserError(
                f"--client_data={self.experiment.config.client_data}: the file is not the one from which the finished "
                f"run in {self.path} was made: restore it, or choose another --run_name or --output_dir."
            )

    def _fingerprint(self) -> dict[str, Any] | None:
        path = federated_data.file_of(self.experiment.config)
        try:
            return None if path is None else files.fingerprint(path)
        except OSError:
            return None

    def write_config(self, data: federated_data.FederatedData, how: Mapping[str, Any]) -> None:
        """Writes config.json, unless an earlier start did.

        Args:
            data: what the clients have.
            how: how the work is laid out, cores, threads a client, clients a call, and what is taken over from where.

        Raises:
            UserError: the client data is not what it was when the run began.
        """
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        self._start = {
            "git_commit": git_commit(),
            "versions": {"python": platform.python_version(), **versions},
            **how,
        }
        record = self._record()
        if record is not None:
            earlier = str(record.get("data_sha256", data.sha256))
            if earlier != data.sha256:
                raise errors.UserError(
                    f"--client_data={self.experiment.config.client_data}: the data has changed since the run in "
                    f"{self.path} began (SHA-256 {earlier[:12]}… then, {data.sha256[:12]}… now): restore it, or choose "
                    "another --run_name."
                )
            if record.get(_FILE) != (file := self._fingerprint()):  # other bytes with the same examples in them
                self.write_json("config.json", {**record, _FILE: file})
            return
        self.write_json(
            "config.json",
            {
                "run_name": self.name,
                "method": self.experiment.config.method,
                "task": self.experiment.config.task,
                "source": data.source,
                "synthetic": data.synthetic,
                "data_sha256": data.sha256,
                _FILE: self._fingerprint(),
                "clients": data.split.counts(),
                "seed": self.experiment.config.seed,
                "given": dict(self.experiment.given),
                "flags": self.experiment.as_json(),
                **self._start,
            },
        )

    def record_start(self, round_number: int) -> None:
        """Adds a start to config.json, which goes on after a round; with 0 it is the one that the record is of."""
        record = self._record()
        assert record is not None
        if not round_number:
            record.pop("rounds_taken_over", None)
            record |= self._start
        start = {name: self._start[name] for name in _OF_A_START if name in self._start}
        record["starts"].append({"after_round": round_number, **start, "workers": self.experiment.config.workers})
        self.write_json("config.json", record)

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file whole or not at all; what is not a number is null."""
        files.write_text(self.path / name, files.json_text(value) + "\n")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Writes a CSV file whole or not at all."""
        files.write_text(self.path / name, table.to_csv(index=False))

    def keep_records_until(self, round_number: int) -> None:
        """Makes metrics.csv and evaluations.csv what they were after a round, from which the run goes on.

        Raises:
            UserError: one of them lacks something of these rounds, or is damaged there.
        """
        every = self.experiment.config.rounds_per_evaluation
        rows_of_evaluation = self.experiment.config.personalization_epochs + 1
        evaluated = range(every, round_number + 1, every) if every else ()
        self._keep_rows(self.path / "metrics.csv", dict.fromkeys(range(1, round_number + 1), 1))
        self._keep_rows(self.path / "evaluations.csv", dict.fromkeys(evaluated, rows_of_evaluation))

    def _keep_rows(self, path: pathlib.Path, counts: Mapping[int, int]) -> None:
        """Cuts a table after a number of rows of each round; refused if they are not all there, in order and whole."""
        if not counts:
            path.unlink(missing_ok=True)
            return
        lines = path.read_bytes().decode(errors="replace").splitlines(keepends=True) if path.exists() else []
        columns = lines[0].rstrip("\r\n").split(",") if lines else []
        kept = 1 + sum(counts.values())
        rounds = itertools.chain.from_iterable([number] * count for number, count in counts.items())
        for line, (text, number) in enumerate(itertools.zip_longest(lines[1:kept], rounds), start=2):
            cells = (text or "").rstrip("\r\n").split(",")
            whole = text and text.endswith("\n") and len(cells) == len(columns) and "round" in columns
            if not whole or cells[columns.index("round")] != str(number):
                raise errors.UserError(
                    f"{path}, line {line}: damaged, a row of round {number} is expected: restore the file, or move "
                    f"{self.path} away and start again."
                )
        if len(lines) > kept:
            files.write_text(path, "".join(lines[:kept]))

    def take_over(self, earlier: earlier_run.EarlierRounds) -> None:
        """Makes another run's records and models of its rounds this run's first ones."""
        for name, text in earlier.records.items():
            files.write_text(self.path / name, text)
        for round_number, weights in earlier.models.items():
            self.models.save(weights, round_number)

    def append_evaluation(self, table: pd.DataFrame, round_number: int, split: str) -> None:
        """Adds an evaluation's rows to evaluations.csv, in place of any it has of the same or of later rounds."""
        path = self.path / "evaluations.csv"
        text = table.to_csv(index=False)
        if path.exists():
            earlier = pd.read_csv(path, dtype=str, keep_default_na=False)
            rounds = earlier["round"].astype(int)
            keep = (rounds < round_number) | ((rounds == round_number) & (earlier["split"] != split))
            text = earlier[keep].to_csv(index=False) + table.to_csv(index=False, header=False)
        files.write_text(path, text)

    def release(
        self, metrics: Mapping[str, Any], round_number: int, histograms: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Releases a round's metrics to metrics.csv and TensorBoard, in place of any of that round or later ones.

        Args:
            metrics: numbers, and words that go only to metrics.csv.
            round_number: the round.
            histograms: numbers over clients, shape (n,), that go only to TensorBoard.
        """
        if not self._managers:
            self._managers = [
                # WRITE replaces the file as a whole: a kill cannot leave half a row.
                tff.program.CSVFileReleaseManager(
                    str(self.path / "metrics.csv"), tff.program.CSVSaveMode.WRITE, key_fieldname="round"
                ),
                tff.program.TensorBoardReleaseManager(str(self.path / "tensorboard")),
            ]
        numbers = collections.OrderedDict((key, value) for key, value in metrics.items() if not isinstance(value, str))
        numbers.update(histograms or {})
        csv, tensorboard = self._managers
        with files.as_os_errors(self.path):
            coroutines.wait_for(csv.release(collections.OrderedDict(metrics), round_number))
            coroutines.wait_for(tensorboard.release(numbers, round_number))


def git_commit() -> str:
    """The commit of the code; "unknown" outside a repository.

    "+changes" follows if what is under version control, docs/ apart, or Python's files are not as they are in it.
    """
    here = pathlib.Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        status = git("status", "--porcelain", "--untracked-files=all", "--", ":/", ":(top,exclude)docs").splitlines()
        changed = any(not line.startswith("??") or line.rstrip('"').endswith(".py") for line in status)
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
