"""The results of a final evaluation's finished calls, on disk: a run that resumes does not compute them again.

    final_evaluation/<key>.npz   the results of one call; the key is a hash of everything that the call depends on

The files are deleted when the run is finished.
"""

import collections
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from tff_personalization import errors
from tff_personalization.records import files

Results = Sequence[Mapping[str, np.ndarray]]
"""Arrays by name: one mapping for each client, or one of all clients."""


class FinishedCalls:
    """The finished calls in a directory, which is made when the first call is finished."""

    def __init__(self, path: pathlib.Path, code: str):
        """Finds what is in the directory.

        Args:
            path: the directory.
            code: a hash of the program's code. The results of other code are not used.
        """
        self._path = path
        self._code = code
        files.clear_leftovers(path)

    def results(self, compute: Callable[[], Results], weights: Sequence[np.ndarray], inputs: Any) -> Results:
        """The results of a call, from disk if it is finished. Otherwise computes and saves them.

        Args:
            compute: makes the call.
            weights: the weights of the model that is evaluated.
            inputs: everything else that the results depend on, besides the run's settings; JSON can write it.
        """
        digest = hashlib.sha256(json.dumps([self._code, inputs]).encode())
        for array in weights:
            digest.update(np.asarray(array).tobytes())
        path = self._path / f"{digest.hexdigest()[:32]}.npz"
        if path.exists():
            try:
                return _by_place(files.load_arrays(path))
            except errors.UserError:
                logging.warning("%s is damaged: its clients are evaluated again.", path)
        results = compute()
        self._path.mkdir(exist_ok=True)
        named = {f"{place}/{name}": value for place, one in enumerate(results) for name, value in one.items()}
        files.save_arrays(path, **named)
        return results

    def clear(self) -> None:
        """Deletes them all."""
        shutil.rmtree(self._path, ignore_errors=True)


def _by_place(arrays: Mapping[str, np.ndarray]) -> Results:
    results: dict[str, dict[str, np.ndarray]] = collections.defaultdict(dict)
    for key, array in arrays.items():
        place, name = key.split("/", 1)
        results[place][name] = array
    return list(results.values())
