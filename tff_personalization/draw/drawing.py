"""Draws the strokes of a pen as the image that a model sees, by the convention of the data.

A round pen of 2 pixels draws the strokes: ink 255 on background 0, antialiased. They are scaled with their proportions
kept, so that the longer side of the ink fills a box of 20×20 pixels in the middle of 28×28.
"""

from collections.abc import Sequence

import numpy as np

from tff_personalization import errors
from tff_personalization.tasks import archives

BOX, PEN = 20.0, 2.0
MOST_STROKES, MOST_POINTS = 64, 5000
_LARGEST = 1e6
# Segments whose distances from all pixels are computed together: 784 pixels × this many floats.
_SEGMENTS_AT_ONCE = 512


def checked(strokes: object) -> list[np.ndarray]:
    """Reads strokes from JSON: a list of lists of [x, y], y downward, in any unit.

    Returns:
        A float array of shape (points, 2) for each stroke.

    Raises:
        UserError: it is something else, empty, or too large.
    """
    if not isinstance(strokes, list) or not all(isinstance(stroke, list) and stroke for stroke in strokes):
        raise errors.UserError("strokes: a list of lists of points [x, y] is expected.")
    if not strokes:
        raise errors.UserError("strokes: there are none; draw something first.")
    if len(strokes) > MOST_STROKES or sum(map(len, strokes)) > MOST_POINTS:
        raise errors.UserError(f"strokes: at most {MOST_STROKES} of {MOST_POINTS} points altogether are read.")
    for stroke in strokes:
        for point in stroke:
            # Python's JSON also has booleans, NaN and infinity; the last two are never within bounds.
            if not (
                isinstance(point, list)
                and len(point) == 2
                and all(type(number) in (int, float) and -_LARGEST <= number <= _LARGEST for number in point)
            ):
                raise errors.UserError(f"strokes: a point is two numbers from -{_LARGEST:g} to {_LARGEST:g}.")
    return [np.array(stroke, float) for stroke in strokes]


def image_of(strokes: Sequence[np.ndarray]) -> np.ndarray:
    """Draws strokes.

    Args:
        strokes: each of shape (points, 2), x and y; a single point is a dot.

    Returns:
        uint8, shape (28, 28).
    """
    points = np.concatenate(strokes)
    low, high = points.min(axis=0), points.max(axis=0)
    longer_side = float((high - low).max())
    # The pen is round and wide: half of its width is on each side of the line.
    scale = (BOX - PEN) / longer_side if longer_side > 0 else 1.0
    middle = np.array(archives.IMAGE_SHAPE[::-1]) / 2
    placed = [(stroke - (low + high) / 2) * scale + middle for stroke in strokes]
    starts = np.concatenate([stroke[:-1] if len(stroke) > 1 else stroke for stroke in placed])
    ends = np.concatenate([stroke[1:] if len(stroke) > 1 else stroke for stroke in placed])
    return np.rint(255 * np.clip(PEN / 2 + 0.5 - _distances(starts, ends), 0, 1)).astype(np.uint8)


def _distances(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The distance of each pixel's middle from the nearest of the segments, in pixels: shape (28, 28)."""
    rows, columns = archives.IMAGE_SHAPE
    pixels = np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), axis=-1)[:, :, np.newaxis]
    nearest = np.full((rows, columns), np.inf)
    for first in range(0, len(starts), _SEGMENTS_AT_ONCE):
        start, along = starts[first:][:_SEGMENTS_AT_ONCE], (ends - starts)[first:][:_SEGMENTS_AT_ONCE]
        from_start = pixels - start
        squares = np.maximum((along**2).sum(axis=-1), 1e-12)
        position = np.clip((from_start * along).sum(axis=-1) / squares, 0, 1)[..., np.newaxis]
        nearest = np.minimum(nearest, np.hypot(*np.moveaxis(from_start - position * along, -1, 0)).min(axis=-1))
    return nearest
