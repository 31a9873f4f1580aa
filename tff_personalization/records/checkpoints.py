"""Checkpoints, from which a run resumes. Each is written whole and checked; the newest few are kept.

    checkpoints/round_10/        TFF's program state after round 10, under a temporary name until it is whole
    checkpoints/round_10.json    written after them: the format's version, the SHA-256 of each of its files, and a hash
                                 of the states that clients had (`ClientStates.digest`)

A checkpoint that does not match its checksums is renamed, and the one before it is used.
"""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import tensorflow_federated as tff
from absl import logging

from tff_personalization import errors
from tff_personalization.records import coroutines, files, tensorflow_errors

FORMAT = 1
"""What a checkpoint holds and how: raise it with every change."""

_KEPT = 3
_PREFIX = "round_"


class Checkpoints:
    """The checkpoints in a directory."""

    def __init__(self, path: pathlib.Path):
        """Makes the directory if it is missing, and deletes half-written files of a killed process."""
        self._path = path
        path.mkdir(parents=True, exist_ok=True)
        files.clear_leftovers(path)
        self._states = tff.program.FileProgramStateManager(
            str(path), prefix=_PREFIX, keep_total=_KEPT, keep_first=False
        )

    def rounds(self) -> list[int]:
        """The rounds after which there is a checkpoint, in order."""
        return coroutines.wait_for(self._states.get_versions()) or []

    def save(self, state: Any, round_number: int, client_states: str | None = None) -> None:
        """Saves the program state after a round, unless it is saved already, and deletes all but the newest few.

        Args:
            state: the program state.
            round_number: the round.
            client_states: a hash of the states that clients had.

        Raises:
            OSError: it cannot be written. Earlier checkpoints are unchanged.
        """
        if round_number in self.rounds():
            return
        try:
            with tensorflow_errors.as_os_errors(self._path):
                coroutines.wait_for(self._states.save(state, round_number))
        except OSError:
            files.clear_leftovers(self._path)  # on a full disk, they would take the last room
            raise
        files.wait_until_there(self._directory(round_number))
        manifest = {"format": FORMAT, "sha256": _digests(self._directory(round_number))}
        manifest["client_states"] = client_states
        files.write_text(self._manifest(round_number), json.dumps(manifest))
        kept = {self._manifest(number).name for number in self.rounds()}
        for path in self._path.glob(f"{_PREFIX}*.json"):
            if path.name not in kept:
                path.unlink()

    def load_newest(self, structure: Callable[[int], Any]) -> tuple[int, Any] | None:
        """The round and program state of the newest whole checkpoint; None if there is none.

        Args:
            structure: maps a round to the structure of the program state after it.

        Raises:
            UserError: another version of this program wrote it, with other contents.
        """
        for round_number in reversed(self.rounds()):
            problem = _problem(self._path, round_number)
            if problem is None:
                return round_number, _load(self._states, self._directory(round_number), round_number, structure)
            self._set_aside(round_number, problem)
        return None

    def _set_aside(self, round_number: int, problem: str) -> None:
        directory = self._directory(round_number)
        aside = directory.with_name(f"damaged_{directory.name}")
        if aside.exists():
            shutil.rmtree(aside)
        directory.rename(aside)
        self._manifest(round_number).unlink(missing_ok=True)
        logging.warning(
            "%s: %s. It is renamed to %s; the run resumes from an earlier checkpoint.", directory, problem, aside.name
        )

    def _directory(self, round_number: int) -> pathlib.Path:
        return self._path / f"{_PREFIX}{round_number}"

    def _manifest(self, round_number: int) -> pathlib.Path:
        return self._path / f"{_PREFIX}{round_number}.json"


def check(path: pathlib.Path, round_number: int) -> None:
    """Raises UserError if a checkpoint of another run is missing, is damaged, or comes from another program version."""
    problem = _problem(path, round_number)
    if problem is not None:
        raise errors.UserError(f"{path / f'{_PREFIX}{round_number}'}: {problem}.")


def client_states(path: pathlib.Path, round_number: int) -> str | None:
    """The hash of the clients' states with which a sound checkpoint was saved, if any."""
    manifest = path / f"{_PREFIX}{round_number}.json"
    return json.loads(manifest.read_bytes()).get("client_states") if manifest.exists() else None


def read(path: pathlib.Path, round_number: int, structure: Callable[[int], Any]) -> Any:
    """The program state after a round, from a directory of another run's checkpoints. Changes nothing there.

    `structure` is as in `Checkpoints.load_newest`.

    Raises:
        UserError: the checkpoint is missing, is damaged, or comes from another program version.
    """
    check(path, round_number)
    directory = path / f"{_PREFIX}{round_number}"
    states = tff.program.FileProgramStateManager(str(path), prefix=_PREFIX, keep_total=0)
    return _load(states, directory, round_number, structure)


def _load(
    states: tff.program.FileProgramStateManager,
    directory: pathlib.Path,
    round_number: int,
    structure: Callable[[int], Any],
) -> Any:
    try:
        return coroutines.wait_for(states.load(round_number, structure(round_number)))
    except Exception as error:
        raise errors.UserError(
            f"{directory}: a checkpoint that this version of the program cannot read "
            f"({' '.join(str(error).split())[:200]}): use the version that wrote it, or choose another --run_name."
        ) from error


def _problem(path: pathlib.Path, round_number: int) -> str | None:
    """What is wrong with a checkpoint's files; None if nothing is."""
    directory = path / f"{_PREFIX}{round_number}"
    try:
        manifest = json.loads(directory.with_name(f"{directory.name}.json").read_bytes())
        version, expected = manifest["format"], dict(manifest["sha256"])
    except FileNotFoundError:
        return "its checksums are missing"
    except (OSError, ValueError, KeyError, TypeError):
        return "its checksums cannot be read"
    if version != FORMAT:
        raise errors.UserError(
            f"{directory}: a checkpoint of format {version}; this version of the program reads format {FORMAT}: use "
            "the version that wrote it, or choose another --run_name."
        )
    try:
        found = _digests(directory)
    except OSError as error:
        return f"{error.filename} cannot be read"
    differing = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    return f"{differing[0]} is damaged" if differing else None


def _digests(directory: pathlib.Path) -> dict[str, str]:
    """The SHA-256 of every file below a directory, by its path there."""
    digests = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digests[path.relative_to(directory).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
