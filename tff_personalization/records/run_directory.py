"""The run directory: the files that a run writes, and from which it resumes.

config.json        every setting, the seed; the commit, versions and cores of each start
metrics.csv        one row a round
evaluations.csv    one row per (round, split, strategy, epoch)
clients.csv        one row per (client, strategy, epoch) of the final evaluation, unless only aggregates are released
by_round.csv       one row per (round, client, epoch): the main strategy, with the models of rounds before the last
distribution.csv   histogram of the final evaluation
choice.csv         the final evaluation on validation clients, if any, and what was chosen by it
chosen_clients.csv one row per (client, epoch): the chosen strategy, at epoch 0 and at the chosen epoch
participants.csv   one row per (client, strategy, epoch), for clients that took part in training, if evaluated
k_shot.csv         one row per (number of train examples, strategy, epoch); with --personalization_examples
summary.json       the run's figures; if it is there, the run is finished
checkpoints/       program state and its checksums, the newest few
models/            the global model after the last round, and after some others
client_states/     what clients keep from round to round, if the method's clients keep anything
final_evaluation/  results of the final evaluation so far; deleted at its end
tensorboard/       round metrics, and distributions over clients, for TensorBoard
worker.log         the output of TFF's worker process
lock               held by the process that writes here
"""

import functools
import hashlib
import json
import os
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

from absl import logging

from tff_personalization import errors, homes, identity
from tff_personalization.experiment import config as config_lib
from tff_personalization.experiment import settings
from tff_personalization.records import files
from tff_personalization.tasks import federated_data

CODE = "code_sha256"
"""The key of config.json that has the hash of the program's own code."""
FILE = "client_data_file"
"""The key of config.json that has the fingerprint of the file or folder of client data."""


class OtherSettings(errors.UserError):
    """A run directory holds a run with other settings. `path` is the directory."""

    def __init__(self, path: pathlib.Path, message: str):
        super().__init__(message)
        self.path = path


class RunDirectory:
    """The run directory of an experiment: its name, its path, and the files of an earlier start."""

    def __init__(self, experiment: config_lib.Experiment):
        """Names the directory. If an earlier start has made it, checks that it belongs to this experiment.

        An unfinished run may get more rounds, unless an earlier round depends on their number.

        Raises:
            OtherSettings: it belongs to a run with other settings.
            UserError: its config.json is missing or damaged, or the run is finished and used another file of client
                data.
        """
        self.experiment = experiment
        self.name = experiment.run_name()
        self.path = homes.expand(experiment.config.output_dir) / self.name
        try:
            os.fspath(self.path).encode()
        except UnicodeEncodeError:  # TensorFlow cannot write there
            raise errors.UserError(f"--output_dir: {self.path}: a name that is not UTF-8: rename the folder.") from None
        self.check()

    def check(self) -> None:
        """Raises the errors of `__init__`; another process may have written the directory since."""
        if not self.begun:
            return
        record = self.record()
        if record is None:
            raise errors.UserError(
                f"{self.path / 'config.json'} is missing: restore it, or move {self.path} away and start again."
            )
        self._check_same_experiment(record)
        if self.finished:
            self._check_same_data(record)

    @property
    def finished(self) -> bool:
        return (self.path / "summary.json").exists()

    @property
    def begun(self) -> bool:
        """Whether an earlier start has computed anything."""
        return self.has_checkpoints or any(
            (self.path / name).exists() for name in ("summary.json", "metrics.csv", "final_evaluation")
        )

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is a checkpoint to continue from."""
        return any((self.path / "checkpoints").glob("round_*.json"))

    def record(self) -> dict[str, Any] | None:
        """The contents of config.json, if an earlier start wrote it; UserError if it is damaged."""
        try:
            record = json.loads((self.path / "config.json").read_bytes())
            record["flags"]["rounds"] + 0  # a number
            return {**record, "flags": dict(record["flags"]), "starts": [*map(dict, record.get("starts", ()))]}
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise errors.UserError(
                f"{self.path / 'config.json'} is damaged ({type(error).__name__}): move {self.path} away, or choose "
                "another --run_name."
            ) from error

    def _check_same_experiment(self, record: Mapping[str, Any]) -> None:
        defaults, ours = settings.defaults(), self.experiment.as_json()
        before, now = (
            {**defaults, **identity.with_flags_of_optimizers(identity.of(of, defaults))}
            for of in (record["flags"], ours)
        )
        # A setting that the run does not read may have had another default in an earlier version.
        read = settings.read_by(self.experiment.values) | ({*before, *now} - defaults.keys())
        differ = [name for name in sorted({*before, *now} & read) if before.get(name) != now.get(name)]
        more = differ == ["rounds"] and before["rounds"] < now["rounds"] and not settings.reader_of_rounds(ours)
        if differ and not (more and not self.finished):
            changes = ", ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in differ)
            raise OtherSettings(
                self.path,
                f"{self.path} holds a run with other settings ({changes}): choose another --run_name, or the same "
                "settings to resume it.",
            )

    def _check_same_data(self, record: Mapping[str, Any]) -> None:
        """Refuses a finished run whose client data came from another file or folder of the same name.

        The data is read only if the bytes of its files differ. An unfinished run always reads it, and checks it then.
        """
        earlier, now = record.get(FILE), self.fingerprint() if FILE in record else None
        if earlier and now and earlier != now and not self._has_same_examples(record):
            raise errors.UserError(
                f"--client_data={self.experiment.config.client_data}: the finished run in {self.path} was made "
                "from other data: restore that data, or choose another --run_name or --output_dir."
            )

    def _has_same_examples(self, record: Mapping[str, Any]) -> bool:
        try:
            data = federated_data.load(self.experiment.config, of_source=self.experiment.of_source)
        except errors.UserError:
            return False
        return data.sha256 == record.get("data_sha256")

    def fingerprint(self) -> dict[str, Any] | None:
        """The `files.fingerprint` of the file or folder of client data; None if there is none."""
        path = federated_data.path_of(self.experiment.config)
        try:
            return None if path is None else files.fingerprint(path)
        except OSError:
            return None


def git_commit() -> str:
    """The commit of the code; "unknown" outside a repository or, after a warning, if git fails.

    "+changes" is appended if tracked files (outside docs/) or Python files differ from the commit.
    """
    root = pathlib.Path(__file__).parents[2]
    if not (root / ".git").exists():  # not that of a repository around it
        return "unknown"
    # Git's environment variables, as in its hooks, would name another repository. The repository may belong to another
    # user, as in a container; git could run no more of that user's code than is running already.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-c", "safe.directory=*", "-C", str(root)]

    def git(*arguments: str) -> str:
        return subprocess.run(
            [*command, *arguments], env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        status = git("status", "--porcelain", "--untracked-files=all", "--", ":/", ":(top,exclude)docs").splitlines()
        changed = any(not line.startswith("??") or line.rstrip('"').endswith(".py") for line in status)
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error.strerror
        logging.warning("The commit of the code is not recorded: git: %s", " ".join(str(reason).split()))
        return "unknown"


@functools.cache
def code_sha256() -> str:
    """The SHA-256 of the program's own code. Other code may give other numbers with the same settings."""
    root = pathlib.Path(__file__).parents[2]
    digest = hashlib.sha256()
    for folder in ("tff_personalization", "baselines"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
