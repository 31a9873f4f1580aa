"""Checks find what is wrong in spoiled data, and nothing in clean data."""

import dataclasses

import numpy as np
import pytest

from tests import unipen
from tests.tasks.sources import small_files
from tff_personalization.tasks import archives, checks, references, sources


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Twelve generated writers."""
    options = small_files.options("handwriting", cache_dir=tmp_path_factory.mktemp("cache"))
    return sources.load(dataclasses.replace(options, settings=sources.Handwriting(num_clients=12), seed=3))


def changed(archive, **changes):
    return dataclasses.replace(archive, **changes)


def inverted_of_some(archive):
    some = archive.client_index < 4
    return changed(archive, x=np.where(some[:, None, None], 255 - archive.x, archive.x))


def digits_of(archive, labels):
    digits = archive.select(archive.y < 10)
    return changed(digits, y=labels(digits.y))


def by_letters(archive):
    letters = archive.select(archive.y >= 10)
    return changed(letters, y=np.where(letters.y < 36, letters.y - 9, letters.y - 35).astype(np.int32))


def twice(archive):
    every = np.concatenate([np.arange(len(archive.y))] * 2)
    return archives.CharacterArchive(
        archive.x[every],
        archive.y[every],
        archive.client_index[every],
        np.arange(len(every)) >= len(archive.y),
        archive.clients,
        archive.classes,
        archive.source,
    )


def noisy_copies(archive):
    copies = twice(archive)
    noise = np.random.default_rng(0).integers(0, 3, copies.x.shape).astype(np.uint8)
    return changed(copies, x=np.where(copies.x < 250, copies.x + noise, copies.x).astype(np.uint8))


SPOILED = {
    "inverted": (lambda a: changed(a, x=255 - a.x), "polarity", "12 of 12 clients"),
    "some writers inverted": (inverted_of_some, "polarity", "4 of 12 clients (writer_0000, "),
    "transposed": (lambda a: changed(a, x=a.x.swapaxes(1, 2)), "orientation", "transposed"),
    "mirrored": (lambda a: changed(a, x=a.x[:, :, ::-1]), "orientation", "mirrored left to right"),
    "upside down": (lambda a: changed(a, x=a.x[:, ::-1]), "orientation", "upside down"),
    "one writer mirrored": (
        lambda a: changed(a, x=np.where((a.client_index == 5)[:, None, None], a.x[:, :, ::-1], a.x)),
        "orientation",
        "1 of 12 clients (writer_0005) seem to have mirrored",
    ),
    "0 and 1": (lambda a: changed(a, x=(a.x > 127).astype(np.uint8)), "range", "no pixel above 1 of 255"),
    "digits from 1": (lambda a: digits_of(a, lambda y: y + 1), "labels", "begin at 1"),
    "letters from 1": (by_letters, "labels", "A-Z from 1"),
    "lower case first": (
        lambda a: changed(a, y=checks.label_maps(a.y)["0-9, a-z, A-Z"][a.y].astype(np.int32)),
        "labels",
        "0-9, a-z, A-Z",
    ),
    "duplicated": (twice, "duplicates", "also in their client's train part"),
    "copied with noise": (noisy_copies, "duplicates", "nearly the same"),
    "a client without a train part": (
        lambda a: changed(a, is_test=a.is_test | (a.client_index == 2)),
        "parts",
        "1 of 12 clients (writer_0002) have no train example",
    ),
}


@pytest.mark.parametrize(("spoil", "kind", "words"), SPOILED.values(), ids=SPOILED)
def test_what_is_spoiled_is_found(clean, spoil, kind, words):
    found = [finding.text for finding in checks.findings(spoil(clean)) if finding.kind == kind]
    assert any(words in text for text in found), found


@pytest.mark.parametrize("num_classes", [62, 10])
def test_nothing_is_found_in_generated_writers_or_real_digits(clean, num_classes):
    assert checks.findings(clean.select(clean.y < num_classes)) == []
    assert checks.findings(sources.load(small_files.options("digits", num_classes))) == []


def test_a_client_with_few_classes_is_not_judged_by_how_its_images_look(clean):
    two = np.isin(clean.y, (2, 7))
    dealt = changed(clean, client_index=np.where(two, 5, clean.client_index)).select(two | (clean.client_index != 5))
    mirrored = changed(dealt, x=np.where((dealt.client_index == 5)[:, None, None], dealt.x[:, :, ::-1], dealt.x))
    assert "orientation" not in {finding.kind for finding in checks.findings(mirrored)}


@pytest.mark.skipif(unipen.ARCHIVE is None, reason="no by-writer archive of real handwriting")
def test_real_handwriting_has_the_right_polarity_orientation_and_labels():
    found = checks.findings(sources.load(small_files.options(unipen.ARCHIVE)))
    assert {finding.kind for finding in found} <= {"duplicates"}  # some of its writers share images


def test_the_reference_is_what_is_drawn():
    assert np.abs(references.draw_means().astype(int) - references.means()).max() <= 1


def test_hashes_tell_images_apart_by_any_pixel():
    images = np.zeros((785, 28, 28), np.uint8)
    images.reshape(785, 784)[np.arange(784), np.arange(784)] = 1
    assert len(np.unique(checks.hashes(images))) == 785


def test_pictures_that_are_no_characters_are_not_called_transposed():
    pictures = np.random.default_rng(1).integers(0, 255, (400, 28, 28)).astype(np.uint8)
    pictures[:, [0, -1]] = pictures[:, :, [0, -1]] = 0
    labels = np.arange(400, dtype=np.int32) % 10
    names = np.array(["a", "b"] * 200)
    archive = archives.CharacterArchive.from_names(
        pictures, labels, names, np.arange(400) % 5 == 0, archives.CLASSES, "x"
    )
    assert checks.findings(archive) == []
