"""What clients keep from round to round, on disk: memory does not grow with the population.

A file `<client>.<round>.npz` holds what a client kept of a round, and never changes. A client's state at the start of
round r is that of its newest file before r. So a run that resumes from a checkpoint deletes the newer files, and its
clients have the states that they had then. A file is deleted when a newer one exists and no kept checkpoint needs it.

At the end there is one file for each client that ever took part. Clients of the latest rounds have one more for each
kept checkpoint at most. A file has 4.8 MB for the paper's network and one copy of its weights.
"""

import collections
import hashlib
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from tff_personalization import errors
from tff_personalization.records import files

_NAME = re.compile(r"([0-9a-f]{32})\.([0-9]+)\.npz")


class ClientStates:
    """The states that clients keep, in files of a directory, by client and round."""

    def __init__(self, path: pathlib.Path):
        """Finds what is in the directory; it is made when the first state is written."""
        self._path = path
        self._rounds: dict[str, list[int]] = collections.defaultdict(list)
        for file in path.glob("*.npz"):
            if name := _NAME.fullmatch(file.name):
                self._rounds[name[1]].append(int(name[2]))
        files.clear_leftovers(path)
        for rounds in self._rounds.values():
            rounds.sort()

    def read(self, members: Iterable[str], initial: Any, first_round: int) -> list[Any]:
        """The newest state of each member, in the structure of `initial`.

        A member that kept nothing in `first_round` or a later round gets `initial` itself.
        """
        return [self._read(_key(member), initial, first_round) for member in members]

    def digest(self, round_number: int) -> str:
        """A hash of the names of the files that hold the clients' states after a round."""
        newest = (
            (key, [number for number in rounds if number <= round_number]) for key, rounds in self._rounds.items()
        )
        names = sorted(self._file(key, numbers[-1]).name for key, numbers in newest if numbers)
        return hashlib.sha256(" ".join(names).encode()).hexdigest()

    def check(self, round_number: int, digest: str | None) -> None:
        """Raises UserError if states are missing that clients had after a round, when there was this `digest`."""
        if digest not in (None, self.digest(round_number)):
            raise errors.UserError(
                f"{self._path}: lacks states that clients had after round {round_number}: restore the folder, or move "
                f"{self._path.parent} away and start again."
            )

    def has(self, members: Iterable[str], first_round: int) -> bool:
        """Whether each member kept something in `first_round` or a later round."""
        return all(max(self._rounds.get(_key(member), ()), default=0) >= first_round for member in members)

    def _read(self, key: str, initial: Any, first_round: int) -> Any:
        newest = max(self._rounds.get(key, ()), default=0)
        if newest < first_round:
            return initial
        return tf.nest.pack_sequence_as(initial, list(files.load_arrays(self._file(key, newest)).values()))

    def write(self, members: Sequence[str], states: Sequence[Any], round_number: int) -> None:
        """Writes the members' states of a round. Each file is written whole or not at all."""
        self._path.mkdir(exist_ok=True)
        for member, state in zip(members, states, strict=True):
            key = _key(member)
            files.save_arrays(self._file(key, round_number), tf.nest.flatten(state))
            self._rounds[key].append(round_number)

    def take_over(self, path: pathlib.Path, round_number: int) -> None:
        """Takes over clients' states after a round from another directory. Both share the files, which never change."""
        other = ClientStates(path)
        for key, rounds in other._rounds.items():
            newest = max((number for number in rounds if number <= round_number), default=0)
            if newest:
                self._path.mkdir(exist_ok=True)
                files.share(other._file(key, newest), self._file(key, newest))
                self._rounds[key] = [newest]

    def forget_after(self, round_number: int) -> None:
        """Deletes the states of later rounds."""
        for key, rounds in self._rounds.items():
            self._remove(key, [number for number in rounds if number > round_number])

    def prune(self, checkpoints: Iterable[int]) -> None:
        """Deletes states that nobody will read: neither a client's newest, nor its newest at a kept checkpoint.

        Args:
            checkpoints: the rounds of the kept checkpoints.
        """
        checkpoints = list(checkpoints)
        for key, rounds in self._rounds.items():
            needed = {max((number for number in rounds if number <= limit), default=0) for limit in checkpoints}
            self._remove(key, [number for number in rounds[:-1] if number not in needed])

    def _remove(self, key: str, rounds: Iterable[int]) -> None:
        for number in rounds:
            self._file(key, number).unlink()
            self._rounds[key].remove(number)

    def _file(self, key: str, round_number: int) -> pathlib.Path:
        return self._path / f"{key}.{round_number}.npz"


def _key(client: str) -> str:
    """A client's name as part of a file name, with characters replaced that file names cannot have."""
    return hashlib.sha256(client.encode()).hexdigest()[:32]
