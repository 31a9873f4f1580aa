"""Reference images of characters, to check the orientation of images and the meaning of their labels.

The reference is the mean image of each class over generated writers. Images are compared after their ink is cut out
with its proportions kept. So the ink's place and size in the image do not matter.
"""

import functools
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tff_personalization.tasks import archives
from tff_personalization.tasks.sources import handwriting

_SIDE = 16
_WRITERS = 40
ALIKE = 0.3
"""The mean correlation with the reference from which on images are taken for characters: real ones have 0.4 to 0.6."""
_FILE = pathlib.Path(__file__).with_name("references.png")

# Upright images, shape (…, S, S), turned to each orientation.
_TURNED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "upright": lambda images: images,
    "transposed": lambda images: images.swapaxes(-1, -2),
    "mirrored left to right": lambda images: images[..., ::-1],
    "upside down": lambda images: images[..., ::-1, :],
    "turned by 180 degrees": lambda images: images[..., ::-1, ::-1],
    "turned by 90 degrees to the left": lambda images: images.swapaxes(-1, -2)[..., ::-1, :],
    "turned by 90 degrees to the right": lambda images: images.swapaxes(-1, -2)[..., ::-1],
    "transposed along the other diagonal": lambda images: images.swapaxes(-1, -2)[..., ::-1, ::-1],
}
ORIENTATIONS = tuple(_TURNED)


def oriented(images: np.ndarray, orientation: str) -> np.ndarray:
    """Upright images, shape (…, S, S), turned to an orientation."""
    return _TURNED[orientation](images)


def cut_out(images: np.ndarray) -> np.ndarray:
    """The ink of images, uint8 of shape (n, 28, 28), cut out as a square: float32, shape (n, _SIDE, _SIDE)."""
    ink = images >= np.maximum(64, images.max(axis=(1, 2)) // 2)[:, None, None]
    corners = []
    for axis in (2, 1):
        seen = ink.any(axis=axis)
        first = np.where(seen.any(1), seen.argmax(1), 0)
        last = np.where(seen.any(1), seen.shape[1] - seen[:, ::-1].argmax(1), seen.shape[1])
        corners.append((first, last))
    side = np.maximum(*(last - first for first, last in corners)).astype(float)
    grids = []
    for first, last in corners:
        start = (first + last - side) / 2
        grids.append(start[:, None] + (np.arange(_SIDE) + 0.5) / _SIDE * side[:, None] - 0.5)
    padded = np.pad(images, ((0, 0), (14, 14), (14, 14))).astype(np.float32)
    low, weight = [], []
    for grid in grids:
        grid = grid + 14
        floor = np.floor(grid).astype(int)
        low.append(floor)
        weight.append((grid - floor).astype(np.float32))
    n = np.arange(len(images))[:, None, None]
    result = np.zeros((len(images), _SIDE, _SIDE), np.float32)
    for down in (0, 1):
        for right in (0, 1):
            share = np.abs(1 - down - weight[0])[:, :, None] * np.abs(1 - right - weight[1])[:, None, :]
            result += share * padded[n, low[0][:, :, None] + down, low[1][:, None, :] + right]
    return result


def _standard(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(len(x), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def draw_means() -> np.ndarray:
    """The mean cut-out of each class over `_WRITERS` generated writers, as bytes: uint8, shape (62, _SIDE, _SIDE)."""
    labels = np.arange(len(archives.CLASSES))
    drawn = [cut_out(handwriting.draw(0, writer, labels, 1.0)) for writer in range(_WRITERS)]
    return np.rint(np.mean(drawn, axis=0)).astype(np.uint8)


@functools.cache
def means() -> np.ndarray:
    """The result of `draw_means`, from a file, because drawing takes seconds."""
    strip = np.asarray(Image.open(_FILE), np.uint8)
    return strip.reshape(_SIDE, len(archives.CLASSES), _SIDE).swapaxes(0, 1)


def similarities(images: np.ndarray) -> np.ndarray:
    """The correlation of images with each class in each orientation: float32, shape (8, n, 62)."""
    seen = _standard(cut_out(images))
    return np.stack([seen @ _standard(oriented(means().astype(np.float32), name)).T for name in ORIENTATIONS])


def own_similarities(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The correlation of images with the class of their label in each orientation: float32, shape (8, n)."""
    return similarities(images)[:, np.arange(len(labels)), labels]


def clearly_greater(one: np.ndarray, other: np.ndarray, margin: float = 0.03, errors: float = 4.0) -> bool:
    """Whether paired values, shape (n,), are greater on average, by a margin and by a number of standard errors."""
    difference = one - other
    if len(difference) < 20:
        return False
    error = difference.std() / np.sqrt(len(difference))
    return bool(difference.mean() > max(margin, errors * error))


def found_orientation(images: np.ndarray, labels: np.ndarray, expected: str = "upright") -> str:
    """The orientation that fits images and labels best, if it fits clearly better than the expected one."""
    own = own_similarities(images, labels)
    best = int(own.mean(axis=1).argmax())
    clear = own[best].mean() >= ALIKE and clearly_greater(own[best], own[ORIENTATIONS.index(expected)])
    return ORIENTATIONS[best] if clear else expected
