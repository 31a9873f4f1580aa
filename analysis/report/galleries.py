"""The gallery of writers: a strip of each writer's characters, with the model's predictions before and after."""

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from analysis import gallery
from analysis import runs as runs_lib

MOST_WRITERS = 24
_MOST_IMAGES = 60  # most images of a writer; those with a changed outcome come first


def writers(run: runs_lib.Run) -> dict[str, dict[str, Any]]:
    """The writers of a run's gallery with the most changed characters, in the page's form, by client.

    Returns:
        For each client `counts` (images by outcome), `strip` (a PNG in base64, its images side by side), `size` (of
        an image, in pixels) and, for each image of the strip in order, `labels`, `before`, `after` (names) and
        `outcomes` (places in `gallery.OUTCOMES`).

    Raises:
        NotRecordedError: the run has no gallery.
    """
    found = gallery.read(run)
    counts = found.counts()
    changed = (counts["put right"] + counts["put wrong"]).sort_values(ascending=False, kind="stable")
    return {client: _writer(found, client, counts.loc[client]) for client in changed.index[:MOST_WRITERS]}


def _writer(found: gallery.Gallery, client: str, counts: pd.Series) -> dict[str, Any]:
    rows = found.table[found.table["client"] == client]
    outcomes = rows["outcome"].map(list(gallery.OUTCOMES).index)
    rows = rows.assign(place=outcomes).sort_values(["place", "label"], kind="stable").head(_MOST_IMAGES)
    strip = np.concatenate(list(found.images[rows.index]), axis=1)
    stream = io.BytesIO()
    Image.fromarray(strip).save(stream, "PNG", optimize=True)
    return {
        "counts": {name: int(count) for name, count in counts.items()},
        "strip": base64.b64encode(stream.getvalue()).decode(),
        "size": int(found.images.shape[1]),
        **{f"{name}s" if name == "label" else name: rows[name].tolist() for name in ("label", "before", "after")},
        "outcomes": [int(place) for place in rows["place"]],
    }
