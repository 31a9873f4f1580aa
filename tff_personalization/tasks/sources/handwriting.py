"""Client data of simulated writers: synthetic handwriting in which every writer has a style.

A writer's style has two parts. The *repertoire* says which form of each character the writer uses (see `strokes`). A
smooth deformation of the strokes (slant, width, curvature, …) is partly common to all characters and partly separate
for each. Look-alikes such as 0, O and o share forms, and their shapes overlap in the population. But each writer
distinguishes them in one consistent way. So a model that has seen a writer's examples can read characters that are
ambiguous by themselves.

The heterogeneity h says how much of the style belongs to the writer. At h = 1 each writer draws a style once, and all
examples follow it. At h = 0 every example draws a new style from the same distribution; the population's characters
look the same as at h = 1, but say nothing about their writers. Above 1 the writers' deformations grow.
"""

import concurrent.futures
import functools
import math
import os
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tqdm

from tff_personalization import errors, seeds
from tff_personalization.tasks import archive_cache, archives, sources
from tff_personalization.tasks.sources import strokes

VERSION = 2
"""Part of the cache key: raise it with every change of what is generated."""

_MEAN_EXAMPLES, _SD_EXAMPLES = 221.0, 89.0  # examples of a writer, as in Federated EMNIST
_FEWEST_EXAMPLES, _MOST_EXAMPLES = 20, 480
_TEST_FRACTION = 0.103
_DIGITS_FRACTION = 0.5
# Approximate numbers of each letter, A to Z and a to z, in EMNIST, in thousands.
_CAPITALS = (6, 4, 10, 5, 5, 9, 2, 3, 12, 4, 2, 5, 9, 8, 25, 8, 2, 5, 21, 10, 13, 5, 5, 3, 5, 3)
_SMALL_LETTERS = (10, 5, 3, 10, 25, 3, 4, 9, 3, 2, 2, 15, 3, 12, 3, 2, 3, 14, 3, 19, 3, 3, 3, 3, 2, 3)

# Terms of the deformation of a form, functions of x, y in [-1, 1] and of the position s in [0, 1] along the strokes,
# with the standard deviations of their effects on (x, y), in half sizes of the form: between writers for all
# characters at once, between writers for each character, and between examples.
_Sds: TypeAlias = tuple[float, float]
_TERMS: tuple[tuple[Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], _Sds, _Sds, _Sds], ...] = (
    (lambda x, y, s: x, (0.10, 0.04), (0.08, 0.06), (0.06, 0.05)),
    (lambda x, y, s: y, (0.18, 0.06), (0.08, 0.06), (0.07, 0.05)),
    (lambda x, y, s: x * y, (0.04, 0.04), (0.08, 0.06), (0.05, 0.04)),
    (lambda x, y, s: x * x, (0.02, 0.04), (0.04, 0.06), (0.03, 0.04)),
    (lambda x, y, s: y * y, (0.04, 0.02), (0.06, 0.05), (0.04, 0.03)),
    (lambda x, y, s: np.sin(np.pi * x), (0.03, 0.03), (0.05, 0.05), (0.03, 0.03)),
    (lambda x, y, s: np.sin(np.pi * y), (0.03, 0.03), (0.05, 0.05), (0.03, 0.03)),
    (lambda x, y, s: np.sin(2 * np.pi * s), (0.0, 0.0), (0.04, 0.04), (0.03, 0.03)),
    (lambda x, y, s: np.cos(2 * np.pi * s), (0.0, 0.0), (0.04, 0.04), (0.03, 0.03)),
    (lambda x, y, s: np.sin(4 * np.pi * s), (0.0, 0.0), (0.03, 0.03), (0.02, 0.02)),
    (lambda x, y, s: np.cos(4 * np.pi * s), (0.0, 0.0), (0.03, 0.03), (0.02, 0.02)),
)
_COMMON_SD, _OWN_SD, _EXAMPLE_SD = (np.array([term[column] for term in _TERMS]) for column in (1, 2, 3))
_PEN_RADIUS, _PEN_COMMON_SD, _PEN_EXAMPLE_SD = 0.95, 0.22, 0.08
_SHIFT_SD = 0.5
_SIGMA = 0.75  # standard deviation of the blur that gives the pen its width
_LARGEST_SIDE, _MARGIN = 21.0, 2.5


def load(options: sources.SourceOptions) -> archives.CharacterArchive:
    """Synthetic handwriting of `num_clients` writers, generated once and cached in `options.cache_dir`.

    Writer i does not depend on the number of writers. With 10 classes the same writers give only their digits.

    Raises:
        UserError: the heterogeneity is infinite, or the cache directory cannot be written.
    """
    heterogeneity, writers = float(options.settings.writer_heterogeneity), options.settings.num_clients
    if heterogeneity == math.inf:
        raise errors.UserError(
            f"--writer_heterogeneity={heterogeneity:g}: give a number from 0 (all writers alike) or more; 1 is the "
            "default."
        )
    try:
        archive_cache.root_of(options.cache_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.UserError(
            f"--cache_dir={options.cache_dir} cannot be written ({error.strerror}): give a directory that can."
        ) from error
    return archive_cache.load_or_make(
        archive_cache.Entry(
            options.cache_dir,
            source="synthetic_handwriting",
            content=(VERSION,),
            variant=f"{writers}writers_{options.num_classes}classes_heterogeneity{heterogeneity!r}_seed{options.seed}",
        ),
        lambda allocate: _draw_all(options, allocate),
    )


def examples(seed: int, writer: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels and parts of a writer's examples, before anything is drawn.

    Args:
        seed: the run's seed.
        writer: the writer's index.

    Returns:
        labels, int32 of shape (n,), and is_test, bool of shape (n,). The first example is a digit of the train part and
        the second a digit of the test part. So every writer has both parts, with all classes and with digits only.
    """
    rng = seeds.generator(seed, "handwriting", writer, "examples")
    shape = (_MEAN_EXAMPLES / _SD_EXAMPLES) ** 2
    count = int(np.clip(rng.gamma(shape, _MEAN_EXAMPLES / shape), _FEWEST_EXAMPLES, _MOST_EXAMPLES))
    letters = np.array([*_CAPITALS, *_SMALL_LETTERS]) / sum((*_CAPITALS, *_SMALL_LETTERS))
    frequencies = np.concatenate([np.full(10, _DIGITS_FRACTION / 10), (1 - _DIGITS_FRACTION) * letters])
    labels = rng.choice(len(frequencies), count, p=frequencies).astype(np.int32)
    is_test = rng.random(count) < _TEST_FRACTION
    labels[:2], is_test[:2] = rng.integers(10, size=2), (False, True)
    return labels, is_test


def _kept_examples(options: sources.SourceOptions, writer: int) -> tuple[np.ndarray, np.ndarray]:
    labels, is_test = examples(options.seed, writer)
    keep = labels < options.num_classes
    return labels[keep], is_test[keep]


def draw(seed: int, writer: int, labels: np.ndarray, heterogeneity: float) -> np.ndarray:
    """Draws characters as a writer writes them: uint8, shape (n, 28, 28), ink 255 on background 0. See `pen_paths`."""
    return render(*pen_paths(seed, writer, labels, heterogeneity))


def pen_paths(
    seed: int, writer: int, labels: np.ndarray, heterogeneity: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The paths of a writer's pen, character by character.

    Args:
        seed: the run's seed.
        writer: the writer's index.
        labels: int, shape (n,), the characters.
        heterogeneity: at least 0.

    Returns:
        The arguments of `render`: points, whether the pen is down between them, and the pen's radius.
    """
    forms, count = strokes.forms(), len(labels)
    style = seeds.generator(seed, "handwriting", writer, "style")
    noise = seeds.generator(seed, "handwriting", writer, "noise")
    faithful = min(1.0, heterogeneity)

    def of_the_writer(persistent: np.ndarray | float, fresh: np.ndarray) -> np.ndarray:
        """Mixes the writer's own draw with fresh ones. The variance is the same for all h up to 1."""
        return math.sqrt(faithful) * max(1.0, heterogeneity) * persistent + math.sqrt(1 - faithful) * fresh

    form = np.empty(count, int)
    follows, fresh_repertoire = noise.random(count) < faithful, noise.random(count)
    for family in forms.families:
        repertoire = family.draw(style.random())
        for column, label in enumerate(family.classes):
            mine = labels == label
            form[mine] = np.where(follows[mine], repertoire[column], family.draw(fresh_repertoire[mine])[:, column])

    shape = _COMMON_SD.shape
    common = of_the_writer(style.normal(size=shape), noise.normal(size=(count, *shape)))
    every_class = style.normal(size=(len(archives.CLASSES), *shape))
    own = of_the_writer(every_class[labels], noise.normal(size=(count, *shape)))
    effects = _COMMON_SD * common + _OWN_SD * own + _EXAMPLE_SD * noise.normal(size=(count, *shape))
    pen = _PEN_RADIUS + _PEN_COMMON_SD * of_the_writer(style.normal(), noise.normal(size=count))
    pen = np.clip(pen + _PEN_EXAMPLE_SD * noise.normal(size=count), 0.55, 1.5)
    shift = _SHIFT_SD * noise.normal(size=(count, 2))

    return _deform(form, effects, shift), forms.joined[form], pen


@functools.cache
def _terms() -> np.ndarray:
    """The terms of the deformation at every point of every form: shape (F, POINTS, terms)."""
    x, y = np.moveaxis(strokes.forms().points, -1, 0)
    along = np.broadcast_to(np.linspace(0, 1, strokes.POINTS), x.shape)
    return np.stack([term[0](x, y, along) for term in _TERMS], -1)


def _deform(form: np.ndarray, effects: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The points of each example's form, deformed, at its place in the image: shape (n, POINTS, 2), in pixels."""
    forms = strokes.forms()
    points = forms.half_size[form, None, None] * (forms.points[form] + _terms()[form] @ effects)
    low, high = points.min(1), points.max(1)
    shrink = np.minimum(1, _LARGEST_SIDE / (high - low).max(1))[:, None]
    room = archives.IMAGE_SHAPE[0] / 2 - _MARGIN - shrink * (high - low) / 2
    centre = archives.IMAGE_SHAPE[0] / 2 + np.clip(shift, -room, room)
    return shrink[:, None] * (points - (low + high)[:, None] / 2) + centre[:, None]


def render(points: np.ndarray, joined: np.ndarray, pen_radius: np.ndarray) -> np.ndarray:
    """Draws polylines with a round pen.

    Args:
        points: float, shape (N, P, 2), x and y in pixels from the top left corner, inside the image.
        joined: bool, shape (N, P - 1), whether the pen is down between a point and the next one.
        pen_radius: float, shape (N,), in pixels.

    Returns:
        uint8, shape (N, 28, 28), ink 255 on background 0, antialiased.
    """
    count, side = len(points), archives.IMAGE_SHAPE[0]
    fine = 2 * side
    length = np.hypot(*np.moveaxis(np.diff(points, axis=1), -1, 0)) * joined
    cell = (points[:, 1:] + points[:, :-1]).astype(np.int32)  # the middle of a segment, in cells of half a pixel
    index = (np.arange(count)[:, None] * fine + cell[..., 1]) * fine + cell[..., 0]
    ink = np.bincount(index.ravel(), length.ravel(), count * fine * fine).astype(np.float32).reshape(count, fine, fine)
    blurred = _BLUR @ ink @ _BLUR.T
    # Beside a long stroke the blurred ink is exp(-d²/2σ²) at the distance d.
    distance = _SIGMA * np.sqrt(-2 * np.log(np.clip(blurred, 1e-6, 1)))
    return np.round(255 * np.clip(pen_radius[:, None, None] + 0.5 - distance, 0, 1)).astype(np.uint8)


def _blur() -> np.ndarray:
    """Weights, float32 of shape (28, 56), that blur by _SIGMA pixels from half pixels to whole ones."""
    side = archives.IMAGE_SHAPE[0]
    offset = (np.arange(side) + 0.5)[:, None] - (np.arange(2 * side) + 0.5)[None] / 2
    return (np.exp(-(offset**2) / (2 * _SIGMA**2)) / (2 * np.pi * _SIGMA**2) ** 0.25).astype(np.float32)


_BLUR = _blur()


def _draw_all(options: sources.SourceOptions, allocate: archive_cache.Allocate) -> archives.CharacterArchive:
    """Draws the examples of every writer."""
    heterogeneity = float(options.settings.writer_heterogeneity)
    numbers = sorted(range(options.settings.num_clients), key=_name)
    written = [_kept_examples(options, writer) for writer in numbers]
    counts = np.array([[np.sum(is_test == part) for _, is_test in written] for part in (False, True)])
    stops = np.cumsum(counts).reshape(2, -1)
    images = allocate(int(counts.sum()))
    labels = np.empty(len(images), np.int32)

    def draw_into_place(index: int) -> None:
        writers_labels, is_test = written[index]
        drawn = draw(options.seed, numbers[index], writers_labels, heterogeneity)
        for part in (0, 1):
            place = slice(stops[part, index] - counts[part, index], stops[part, index])
            images[place], labels[place] = drawn[is_test == part], writers_labels[is_test == part]

    _terms()  # before the threads start, so that it is built once
    # Threads are enough, because NumPy releases the interpreter's lock for most of the time.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as executor:
        done = executor.map(draw_into_place, range(len(numbers)))
        for _ in tqdm.tqdm(done, "drawing synthetic handwriting", len(numbers), unit="writers", delay=1):
            pass
    return archives.CharacterArchive.from_counts(
        images,
        labels,
        counts,
        tuple(map(_name, numbers)),
        archives.CLASSES[: options.num_classes],
        f"synthetic handwriting, {len(numbers)} writers, heterogeneity {heterogeneity:g}",
    )


def _name(writer: int) -> str:
    return f"writer_{writer:04d}"
