"""Writes a run directory, which it holds locked. Each file is written whole or not at all."""

import collections
import contextlib
import errno
import fcntl
import functools
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
import pandas as pd
import tensorflow_federated as tff
from absl import logging

from tff_personalization import errors, identity
from tff_personalization.records import (
    checkpoints,
    client_states,
    coroutines,
    earlier_run,
    files,
    finished_calls,
    round_tables,
    run_directory,
    saved_models,
    tensorflow_errors,
)
from tff_personalization.tasks import federated_data, registry

_PACKAGES = ("tensorflow", "tensorflow-federated", "numpy", "pandas")
# The errors of cluster file systems (Lustre, NFS) that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
IN_USE = "is being written by another process"
"""What the error says if another process holds the lock of a run directory."""
_PLACES = ("client_data", "plugin", *identity.CLIENT_IDS)  # settings that are paths of what a run reads
_OF_A_START = ("git_commit", run_directory.CODE, "versions", "cores")


@contextlib.contextmanager
def opened(
    directory: run_directory.RunDirectory, data: federated_data.FederatedData, how: Mapping[str, Any]
) -> Iterator["RunWriter"]:
    """Locks a run directory for this process and opens it for writing. It keeps what an earlier start saved.

    Args:
        directory: it is made if it is missing.
        data: the client data.
        how: how the work is done, for config.json: cores, threads a client, clients a call, and rounds taken over.

    Raises:
        UserError: the directory cannot be written, another process uses it, or the client data has changed since the
            run began.
    """
    with contextlib.ExitStack() as stack:
        try:
            directory.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(directory.path))
            directory.check()
            log = stack.enter_context((directory.path / "worker.log").open("ab"))
            writer = RunWriter(directory, log, how)
        except OSError as error:
            raise errors.UserError(
                f"--output_dir={directory.experiment.config.output_dir}: cannot write {directory.path} "
                f"({error.strerror}); give a directory that you may write to."
            ) from error
        writer.write_config(data)
        yield writer


def _locked(path: pathlib.Path) -> IO[str]:
    """The lock file of the directory. This process holds the lock until it closes the file or ends, in any way.

    Where the file system has no locks, a warning says so and the run continues.

    Raises:
        UserError: another process holds it.
    """
    file = (path / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            logging.warning(
                "%s: this file system has no locks (%s), so nothing stops a second process from writing there: "
                "do not start another one.",
                path,
                error.strerror,
            )
        elif error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            file.close()
            raise
        else:
            file.seek(0)
            process = file.read().strip()
            raise errors.UserError(
                f"{path} {IN_USE}{f' ({process})' if process else ''}: wait for it, or choose another --run_name."
            ) from None
    file.truncate(0)
    file.write(_holder())
    file.flush()
    return file


def _holder() -> str:
    """What the lock file says while this process holds it."""
    return f"{os.getpid()}\n"


class RunWriter:
    """Writes the files of a run directory.

    Attributes:
        directory: the run directory.
        worker_log: where TFF's worker writes.
        checkpoints: the newest few checkpoints.
        models: the global models that the run keeps.
        client_states: what clients keep from round to round.
        finished_calls: the results of finished calls of the final evaluation.
    """

    def __init__(self, directory: run_directory.RunDirectory, worker_log: IO[bytes], how: Mapping[str, Any]):
        """Deletes half-written files of a killed process; `how` is as in `opened`."""
        self.directory = directory
        self.worker_log = worker_log
        self.checkpoints = checkpoints.Checkpoints(directory.path / "checkpoints")
        self.models = saved_models.SavedModels(directory.path / "models")
        self.client_states = client_states.ClientStates(directory.path / "client_states")
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        self._start = {
            "git_commit": run_directory.git_commit(),
            run_directory.CODE: run_directory.code_sha256(),
            "versions": {"python": platform.python_version(), **versions},
            **how,
        }
        self.finished_calls = finished_calls.FinishedCalls(
            directory.path / "final_evaluation", run_directory.code_sha256()
        )
        files.clear_leftovers(directory.path)

    @functools.cached_property
    def _managers(self) -> tuple[tff.program.ReleaseManager, tff.program.ReleaseManager]:
        """TFF's release managers for metrics.csv (which is read here) and TensorBoard."""
        return (
            # WRITE replaces the file as a whole: a kill cannot leave half a row.
            tff.program.CSVFileReleaseManager(
                str(self.directory.path / "metrics.csv"), tff.program.CSVSaveMode.WRITE, key_fieldname="round"
            ),
            tff.program.TensorBoardReleaseManager(str(self.directory.path / "tensorboard")),
        )

    def write_config(self, data: federated_data.FederatedData) -> None:
        """Writes config.json, unless an earlier start did and has computed something.

        Raises:
            UserError: the client data has changed since the run began.
        """
        directory, config = self.directory, self.directory.experiment.config
        record, fingerprint = directory.record(), directory.fingerprint()
        earlier_starts = {} if record is None else {"starts": record["starts"]}
        metric = registry.TASKS[config.task].predicts.metric
        if record is None or not directory.begun:
            self.write_json(
                "config.json",
                {
                    "run_name": directory.name,
                    "method": config.method,
                    "task": config.task,
                    "metric": metric.name,
                    "higher_is_better": metric.higher_is_better,
                    "largest_score": metric.largest,
                    "source": data.source,
                    "synthetic": data.synthetic,
                    "data_sha256": data.sha256,
                    "examples_sha256": data.examples_sha256,
                    run_directory.FILE: fingerprint,
                    "clients": data.split.counts(),
                    "seed": config.seed,
                    "given": dict(directory.experiment.given),
                    "flags": directory.experiment.as_json(),
                    **self._start,
                    **earlier_starts,
                },
            )
            return
        earlier = str(record.get("data_sha256", data.sha256))
        if earlier != data.sha256:
            raise errors.UserError(
                f"--client_data={config.client_data}: the data has changed since the run in {directory.path} began "
                f"(SHA-256 {earlier[:12]}… then, {data.sha256[:12]}… now): restore it, or choose another --run_name."
            )
        # The file may have other bytes with the same examples; the run may have more rounds, and files may have moved.
        now, before = {run_directory.FILE: fingerprint}, record.get("given", {})
        moved = any(before.get(name) != directory.experiment.given.get(name) for name in _PLACES)
        if moved or record["flags"].get("rounds") != config.rounds:
            now |= {"flags": directory.experiment.as_json(), "given": dict(directory.experiment.given)}
        if any(record.get(name) != value for name, value in now.items()):
            self.write_json("config.json", {**record, **now})

    def check_place(self) -> None:
        """Raises UserError if this process no longer holds the directory: it was moved or removed, or is another's."""
        lock = self.directory.path / "lock"
        if not lock.exists() or lock.read_text() != _holder():
            raise errors.UserError(
                f"{self.directory.path} was moved, removed or taken by another process while this run was writing "
                "there: put it back, then start again."
            )

    def remove_if_unused(self) -> None:
        """Removes a directory in which no start has got as far as its rounds, unless it has files of others."""
        record = self.directory.record()
        if self.directory.begun or (record and record["starts"]):
            return
        for name in ("config.json", "worker.log", "lock"):
            (self.directory.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            for folder in (self.directory.path / "checkpoints", self.directory.path):
                folder.rmdir()

    def check_tables(self) -> None:
        """Raises UserError if metrics.csv or evaluations.csv lacks something of the run's rounds, or is damaged."""
        config = self.directory.experiment.config
        round_tables.keep_until(self.directory.path, config, config.rounds)

    def save_checkpoint(self, state: Any, round_number: int) -> None:
        """Saves the program state after a round, if this process still holds the directory."""
        self.check_place()
        self.checkpoints.save(state, round_number, self.client_states.digest(round_number))

    def resume_after(self, round_number: int) -> None:
        """Cuts the records to their state after a round, and adds this start to config.json.

        With round 0, config.json already describes this start.

        Raises:
            UserError: metrics.csv or evaluations.csv lacks something of these rounds, or is damaged there, or a state
                of a client is missing.
        """
        digest = checkpoints.client_states(self.directory.path / "checkpoints", round_number)
        self.client_states.check(round_number, digest)
        self.client_states.forget_after(round_number)
        round_tables.keep_until(self.directory.path, self.directory.experiment.config, round_number)
        record = self.directory.record()
        assert record is not None
        before = record["starts"][-1].get(run_directory.CODE) if record["starts"] else None
        if round_number and before not in (None, self._start[run_directory.CODE]):
            logging.warning(
                "%s: rounds up to %d were computed by other code. The numbers may differ from those of one version; "
                "another --run_name computes all rounds again.",
                self.directory.path,
                round_number,
            )
        if not round_number:
            record.pop("rounds_taken_over", None)
            record |= self._start
        start = {name: self._start[name] for name in _OF_A_START if name in self._start}
        workers = self.directory.experiment.config.workers
        record["starts"].append({"after_round": round_number, **start, "workers": workers})
        self.write_json("config.json", record)

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file; NaN and infinity become null."""
        files.write_text(self.directory.path / name, files.json_text(value) + "\n")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Writes a CSV file."""
        files.write_text(self.directory.path / name, table.to_csv(index=False))

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes an .npz file."""
        files.save_arrays(self.directory.path / name, **arrays)

    def take_over(self, earlier: earlier_run.EarlierRounds) -> None:
        """Copies the records and models of an earlier run's rounds; they become this run's first rounds."""
        for name, text in earlier.records.items():
            files.write_text(self.directory.path / name, text)
        for round_number, weights in earlier.models.items():
            self.models.save(weights, round_number)
        if earlier.with_state:
            self.client_states.take_over(earlier.client_states, earlier.rounds)

    def append_evaluation(self, table: pd.DataFrame, round_number: int, split: str) -> None:
        """Appends an evaluation's rows to evaluations.csv. Rows of the same or of later rounds are replaced."""
        round_tables.append_evaluation(self.directory.path / "evaluations.csv", table, round_number, split)

    def release(
        self, metrics: Mapping[str, Any], round_number: int, histograms: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Releases a round's metrics to metrics.csv and TensorBoard.

        In metrics.csv, rows of the same or of later rounds are replaced. TensorBoard shows the newest of each round.

        Args:
            metrics: numbers, and text that goes only to metrics.csv.
            round_number: the round.
            histograms: numbers over clients, shape (n,), that go only to TensorBoard.
        """
        numbers = collections.OrderedDict((key, value) for key, value in metrics.items() if not isinstance(value, str))
        numbers.update(histograms or {})
        with tensorflow_errors.as_os_errors(self.directory.path):
            metrics_csv, tensorboard = self._managers
            coroutines.wait_for(metrics_csv.release(collections.OrderedDict(metrics), round_number))
            coroutines.wait_for(tensorboard.release(numbers, round_number))
