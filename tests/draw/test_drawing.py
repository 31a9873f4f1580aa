"""Drawing strokes as images by the data's convention."""

import math

import numpy as np
import pytest

from benchmarks import pen
from tests import unipen
from tests.draw import ink
from tff_personalization import errors
from tff_personalization.draw import drawing


def image_of(*strokes):
    return drawing.image_of([np.array(stroke, float) for stroke in strokes])


def test_a_line_is_two_pixels_wide_and_fills_the_box_in_its_longer_side():
    expected = np.zeros((28, 28), np.uint8)
    expected[4:24, 13:15] = 255
    image = image_of([[5, 10], [5, 510]])
    np.testing.assert_array_equal(image[5:23], expected[5:23])
    # Its ends are round: their corners are fainter.
    np.testing.assert_array_equal(image[:4], 0)
    np.testing.assert_array_equal(image[24:], 0)
    assert 0 < image[4, 13] < 255


def test_ink_falls_with_the_distance_from_the_line():
    image = image_of([[0, 0], [100, 100]])
    # The line is y = x: a pixel's middle is |column − row| / √2 from it.
    for offset in (0, 1, 2, 3):
        coverage = min(1.0, max(0.0, 1.5 - offset / math.sqrt(2)))
        assert image[14, 14 + offset] == round(255 * coverage)


def test_where_and_how_large_the_drawing_is_does_not_matter():
    strokes = pen.strokes_of_writer(1, 0, [11])[0]
    image = image_of(*strokes)
    moved = [(np.array(stroke) * 300 + [40, -7]) for stroke in strokes]
    np.testing.assert_array_equal(drawing.image_of(moved), image)


def test_a_dot_is_a_dot_in_the_middle():
    image = image_of([[3, 4]])
    assert image[13:15, 13:15].min() > 150
    assert np.count_nonzero(image) == np.count_nonzero(image[12:16, 12:16])


def test_a_dot_beside_a_line_is_drawn():
    with_dot, without = image_of([[0, 20], [0, 100]], [[0, 0]]), image_of([[0, 0], [0, 1]], [[0, 20], [0, 100]])
    assert (np.abs(with_dot.astype(int) - without) > 60).sum() <= 4


def test_many_segments_are_drawn_as_few():
    angle = np.linspace(0, 2 * np.pi, 1500)
    fine = np.stack([np.cos(angle), np.sin(angle)], 1)
    difference = image_of(fine).astype(int) - image_of(fine[::10]).astype(int)
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize(
    "strokes",
    [
        None,
        {},
        [],
        "ab",
        [[]],
        [[[1]]],
        [[[1, 2, 3]]],
        [[["1", 2]]],
        [[[1, None]]],
        [[[True, 1]]],
        [[1, 2]],
        [[[1, 2]], []],
    ]
    + [[[[1, number]]] for number in (math.nan, math.inf, 1e7, 10**400)]
    + [[[[0, 0]]] * 65, [[[0, 0]] * 5001]],
)
def test_a_body_without_a_drawing_is_refused_in_one_line(strokes):
    with pytest.raises(errors.UserError, match=r"strokes: [^\n]+$"):
        drawing.checked(strokes)


@unipen.needed
def test_lines_along_the_ink_of_real_handwriting_give_its_image_again():
    with np.load(unipen.ARCHIVE) as archive:
        images = archive["images"][::2000]
    likeness = []
    for image in images:
        again = drawing.image_of(drawing.checked(ink.strokes_along_ink(image)))
        likeness.append(np.corrcoef(image.ravel(), again.ravel())[0, 1])
    assert np.mean(likeness) > 0.9
