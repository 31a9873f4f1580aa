"""Draws docs/handwriting.png: the characters of twelve synthetic writers, a writer a row.

Usage: python -m docs.contact_sheet
"""

import pathlib

import matplotlib.image
import numpy as np

from tff_personalization.tasks import archives
from tff_personalization.tasks.sources import handwriting

WRITERS, SEED, HETEROGENEITY, GAP = 12, 0, 1.0, 2
OUTPUT = pathlib.Path(__file__).parent / "handwriting.png"


def contact_sheet() -> np.ndarray:
    """Every class of the first WRITERS writers: uint8, shape (height, width), dark ink on white."""
    labels = np.arange(len(archives.CLASSES))
    rows = [handwriting.draw(SEED, writer, labels, HETEROGENEITY) for writer in range(WRITERS)]
    padded = np.pad(np.stack(rows), ((0, 0), (0, 0), (0, GAP), (0, GAP)))
    writers, classes, height, width = padded.shape
    return 255 - padded.transpose(0, 2, 1, 3).reshape(writers * height, classes * width)


if __name__ == "__main__":
    matplotlib.image.imsave(OUTPUT, contact_sheet(), cmap="gray", vmin=0, vmax=255)
