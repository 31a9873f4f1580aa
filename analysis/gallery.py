"""A run's predictions for the test images of test clients before and after personalization (gallery.npz).

`python -m tff_personalization.tools.gallery RUN` writes the file. This module reads it without TensorFlow.
"""

import dataclasses

import numpy as np
import pandas as pd

from analysis import runs as runs_lib
from tff_personalization.errors import OF_ZIP_FILES, UserError

FILE = "gallery.npz"
# The outcomes of an image: (right before, right after).
OUTCOMES = {
    "put right": (False, True),
    "put wrong": (True, False),
    "still wrong": (False, False),
    "right": (True, True),
}
_DIMENSIONS = {"images": 3, "labels": 1, "before": 1, "after": 1, "client": 1, "classes": 1}


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The test images of some clients.

    Attributes:
        images: uint8, shape (n, rows, columns), bright ink on dark.
        table: one row an image: client, label, before and after (names of classes, "–" for none), outcome (of
            `OUTCOMES`).
    """

    images: np.ndarray
    table: pd.DataFrame

    def counts(self) -> pd.DataFrame:
        """The number of images with each outcome: one row per client, one column per outcome."""
        counts = self.table.groupby("client", sort=False)["outcome"].value_counts().unstack(fill_value=0)
        return counts.reindex(columns=list(OUTCOMES), fill_value=0)


def read(run: runs_lib.Run) -> Gallery:
    """The gallery of a run.

    Raises:
        NotRecordedError: it has none.
        UserError: the file is damaged.
    """
    path = run.directory / FILE
    if not path.exists():
        raise runs_lib.NotRecordedError(
            f"{run.directory}: no {FILE}; run tff_personalization.tools.gallery on it first"
        )
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _DIMENSIONS}
    except (*OF_ZIP_FILES, KeyError) as error:
        raise UserError(f"{path}: damaged ({error}); make it again with tff_personalization.tools.gallery") from None
    examples = {len(array) for name, array in arrays.items() if name != "classes"}
    if len(examples) != 1 or any(arrays[name].ndim != dimensions for name, dimensions in _DIMENSIONS.items()):
        raise UserError(
            f"{path}: arrays that do not fit together; make it again with tff_personalization.tools.gallery"
        )
    names = np.append(arrays["classes"].astype(str), "–")  # −1, no class, is the last
    table = pd.DataFrame({"client": arrays["client"].astype(str)})
    for column, name in (("label", "labels"), ("before", "before"), ("after", "after")):
        if len(table) and not -1 <= arrays[name].min() <= arrays[name].max() < len(names) - 1:
            raise UserError(
                f"{path}: {name} has a class without a name; make it again with tff_personalization.tools.gallery"
            )
        table[column] = names[arrays[name]]
    right = {name: arrays[name] == arrays["labels"] for name in ("before", "after")}
    table["outcome"] = [
        next(outcome for outcome, both in OUTCOMES.items() if both == pair)
        for pair in zip(right["before"].tolist(), right["after"].tolist(), strict=True)
    ]
    return Gallery(arrays["images"], table)
