"""Strokes that could have drawn an image of handwriting."""

import numpy as np


def strokes_along_ink(image):
    """Strokes that cover the ink of an image: from each inked pixel to the nearest unvisited neighbour."""
    left = set(map(tuple, np.argwhere(image > 180).tolist()))
    strokes = []
    while left:
        row, column = min(left)
        stroke = []
        while (row, column) in left:
            left.remove((row, column))
            stroke.append([(column + 0.5) / image.shape[1], (row + 0.5) / image.shape[0]])
            beside = [(abs(r) + abs(c), row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
            _, row, column = min((item for item in beside if item[1:] in left), default=(0, row, column))
        strokes.append(stroke)
    return strokes
