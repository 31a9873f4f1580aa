"""The strokes of synthetic writers, for programs that draw on the drawing page."""

from collections.abc import Sequence

import numpy as np

from tff_personalization.tasks import archives
from tff_personalization.tasks.sources import handwriting

HETEROGENEITY = 1.0
_EVERY = 6  # of the points along a stroke, which lie closer than a pointer's


def strokes_of_writer(seed: int, writer: int, labels: Sequence[int]) -> list[list[list[list[float]]]]:
    """A writer's strokes for each label (a class's index): lists of points [x, y], as shares of the image's side."""
    paths, joined, _ = handwriting.pen_paths(seed, writer, np.asarray(labels), HETEROGENEITY)
    drawn = []
    for points, down in zip(paths / archives.IMAGE_SHAPE[0], joined, strict=True):
        strokes = np.split(points, np.flatnonzero(~down) + 1)
        drawn.append([np.concatenate([stroke[:-1:_EVERY], stroke[-1:]]).round(4).tolist() for stroke in strokes])
    return drawn
