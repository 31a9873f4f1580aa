import numpy as np
import pytest
from sklearn import datasets

from tests.tasks.sources import small_files
from tff_personalization.tasks import archives
from tff_personalization.tasks.sources import digits


@pytest.fixture(scope="module")
def archive():
    return digits.load(small_files.options("digits"))


def test_every_digit_is_there_in_order(archive):
    labels = datasets.load_digits().target
    np.testing.assert_array_equal(archive.labels, labels)
    assert len(labels) == 1797
    assert archive.classes == archives.CLASSES
    assert archive.source == "scikit-learn digits, 14 writers"


def test_14_writers_part_the_examples_in_order(archive):
    assert (archive.client[:-1] <= archive.client[1:]).all()
    writers, counts = np.unique(archive.client, return_counts=True)
    assert writers.tolist() == [f"digits_writer_{number:02d}" for number in range(1, 15)]
    assert counts.min() >= 120
    assert counts.max() == 130


def test_each_writer_begins_with_the_start_of_the_form(archive):
    for writer in np.unique(archive.client):
        text = "".join(map(str, archive.labels[archive.client == writer]))
        # One writer's first 0 is missing.
        assert text.startswith(("012345678901234", "12345678901234"))


def test_the_form_explains_all_labels_but_one():
    labels = datasets.load_digits().target
    place = digits.align_with_forms(labels)
    assert (np.diff(place) > 0).all()
    assert (digits.FORM[place % 130] == labels).sum() == 1796


def test_each_writers_hand_is_distinguished_from_the_others_by_nearest_neighbours(archive):
    # If writers' borders were wrong, or two writers were joined, the nearest image of the same digit would less often
    # belong to the same writer: 1 in 14 by chance.
    images = archive.images.reshape(1797, -1).astype(float)
    squares = (images**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * images @ images.T
    distance[archive.labels[:, None] != archive.labels] = np.inf
    np.fill_diagonal(distance, np.inf)
    nearest = archive.client[distance.argmin(axis=1)]
    for writer in np.unique(archive.client):
        found, counts = np.unique(nearest[archive.client == writer], return_counts=True)
        assert found[counts.argmax()] == writer
        assert counts.max() > 2 * np.sort(counts)[-2]


def test_missing_and_wrong_and_added_examples_do_not_move_the_borders():
    rng = np.random.default_rng(0)
    for _ in range(20):
        place = np.arange(6 * 130)
        # Not at a border, where an example could belong to either side.
        inner = place[(place % 130 > 5) & (place % 130 < 125)]
        labels = digits.FORM[place % 130].copy()
        wrong = rng.choice(inner, 10, replace=False)
        labels[wrong] = (labels[wrong] + 1) % 10
        kept = np.delete(place, rng.choice(inner, 10, replace=False))
        added = rng.choice(inner, 3)
        at = np.sort(np.concatenate([kept, added]), kind="stable")
        found = digits.align_with_forms(labels[at])
        np.testing.assert_array_equal(found // 130, at // 130)


def test_the_alignment_of_one_whole_form_is_the_identity():
    np.testing.assert_array_equal(digits.align_with_forms(digits.FORM), np.arange(130))


def test_images_keep_their_place_and_range(archive):
    original = datasets.load_digits().images
    assert archive.images.dtype == np.uint8
    margin = np.ones((28, 28), bool)
    margin[4:24, 4:24] = False
    assert not archive.images[:, margin].any()
    # Interpolation keeps the mean of a box's ink, except at the edges, where the outermost pixels are stretched.
    ratio = archive.images[:, 4:24, 4:24].mean(axis=(1, 2)) / 255 / (original.mean(axis=(1, 2)) / 16)
    np.testing.assert_allclose(ratio, 1, atol=0.1)


def test_an_even_image_stays_even():
    scaled = digits._scale(np.full((1, 8, 8), 16.0))
    np.testing.assert_array_equal(scaled[0, 4:24, 4:24], 255)


def test_a_slope_stays_a_slope():
    # Bilinear interpolation keeps a linear ramp between the outermost pixel centres: 2.5 new pixels to an old one.
    scaled = digits._scale(np.tile(np.arange(8.0) * 2, (1, 8, 1)))[0, 14, 4:24]
    centres = (np.arange(20) + 0.5) / 2.5 - 0.5
    np.testing.assert_allclose(scaled, np.clip(centres, 0, 7) * 2 * 255 / 16, atol=0.5)


def test_a_fifth_of_each_writers_digits_are_test_examples(archive):
    for writer in np.unique(archive.client):
        assert archive.is_test[archive.client == writer].mean() == pytest.approx(0.2, abs=0.01)


def test_the_split_depends_only_on_the_seed(archive):
    np.testing.assert_array_equal(digits.load(small_files.options("digits")).is_test, archive.is_test)
    assert (digits.load(small_files.options("digits", seed=1)).is_test != archive.is_test).any()
