import io
import types
import zipfile

import numpy as np
import psutil
import pytest

from tests import unipen
from tests.tasks.sources import small_files
from tff_personalization import errors
from tff_personalization.tasks import archives, sources
from tff_personalization.tasks.sources import npz_archive


def _save(tmp_path, **changes):
    """Writes a by-writer archive with some arrays replaced, or left out if the change is None."""
    path = tmp_path / "hands.npz"
    kept = {name: value for name, value in {**small_files.arrays(), **changes}.items() if value is not None}
    np.savez_compressed(path, **kept)
    return path


def _load(path, **options):
    return npz_archive.load(small_files.options(path, **options))


def _with(name, index, value):
    array = small_files.arrays()[name].copy()
    array[index] = value
    return array


def test_integer_images_labels_and_writers_are_kept_as_they_are(tmp_path):
    expected = small_files.arrays()
    archive = _load(_save(tmp_path))
    np.testing.assert_array_equal(archive.images, expected["images"])
    np.testing.assert_array_equal(archive.labels, expected["labels"])
    np.testing.assert_array_equal(archive.client, expected["writer"])
    assert archive.classes == archives.CLASSES
    assert archive.source == "hands, 3 writers"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_images_are_quantized_to_256_levels(tmp_path, dtype):
    expected = small_files.arrays()["images"]
    archive = _load(_save(tmp_path, images=(expected / 255).astype(dtype)))
    np.testing.assert_array_equal(archive.images, expected)


def test_float_images_are_rounded_in_double_precision(tmp_path):
    """The float32 nearest to 0.3 is above it, so its level is above 76.5; in float32 the product would be 76.5."""
    images = small_files.arrays()["images"].astype(np.float32) / 255
    images[0, 5, 5] = 0.3
    assert _load(_save(tmp_path, images=images)).images[0, 5, 5] == 77


def test_wide_integer_images_are_kept_as_they_are(tmp_path):
    expected = small_files.arrays()["images"]
    np.testing.assert_array_equal(_load(_save(tmp_path, images=expected.astype(np.int64))).images, expected)


def test_dark_ink_is_inverted(tmp_path):
    expected = small_files.arrays()["images"]
    archive = _load(_save(tmp_path, images=255 - expected, ink=np.array("dark")))
    np.testing.assert_array_equal(archive.images, expected)


def test_bright_ink_on_a_bright_background_is_taken_at_its_word(tmp_path):
    expected = 255 - small_files.arrays()["images"]
    np.testing.assert_array_equal(_load(_save(tmp_path, images=expected, ink=np.array("bright"))).images, expected)


def test_a_bright_background_is_refused_unless_the_ink_is_named(tmp_path):
    path = _save(tmp_path, images=255 - small_files.arrays()["images"])
    small_files.refusal(_load, path, names=[path, "invert", "ink='dark'"])


def test_integer_writers_become_strings(tmp_path):
    archive = _load(_save(tmp_path, writer=np.arange(12) % 2))
    np.testing.assert_array_equal(archive.client, ["0", "1"] * 6)


def test_classes_in_another_order_are_brought_to_the_projects(tmp_path):
    classes, labels = np.array(["b", "7", "A"]), np.arange(12) % 3
    archive = _load(_save(tmp_path, labels=labels, classes=classes))
    assert [archives.CLASSES[label] for label in archive.labels] == ["b", "7", "A"] * 4
    assert archive.classes == archives.CLASSES


def test_a_given_split_is_kept(tmp_path):
    split = np.array(["train", "train", "train", "test"] * 3)
    np.testing.assert_array_equal(_load(_save(tmp_path, split=split)).is_test, split == "test")


def test_the_split_depends_only_on_the_seed(tmp_path):
    path = _save(tmp_path, **small_files.arrays(count=300))
    first = _load(path, seed=1).is_test
    np.testing.assert_array_equal(first, _load(path, seed=1).is_test)
    assert (first != _load(path, seed=2).is_test).any()


def test_the_digits_are_split_on_their_own(tmp_path):
    labels = np.array([3, 3, 3, 3, 3, *range(30, 60)])
    data = {**small_files.arrays(count=35, writers=1), "labels": labels}
    for seed in range(20):
        archive = _load(_save(tmp_path, **data), num_classes=10, seed=seed)
        assert archive.labels.tolist() == [3] * 5
        assert archive.is_test.sum() == 1


@pytest.mark.parametrize("seed", range(5))
def test_a_fifth_of_each_class_of_each_writer_is_tested_when_fives_divide_it(tmp_path, seed):
    rng = np.random.default_rng(seed)
    fives = rng.integers(0, 5, (4, 7))  # By writer and class.
    writer, label = np.nonzero(np.ones_like(fives))
    order = rng.permutation(5 * fives.sum())
    writer, label = np.repeat(writer, 5 * fives.ravel())[order], np.repeat(label, 5 * fives.ravel())[order]
    data = {**small_files.arrays(count=len(order), seed=seed), "writer": writer, "labels": label}
    archive = _load(_save(tmp_path, **data), seed=seed)
    tested, trained = np.zeros_like(fives), np.zeros_like(fives)
    np.add.at(tested, (writer, label), archive.is_test)
    np.add.at(trained, (writer, label), ~archive.is_test)
    np.testing.assert_array_equal(tested, fives)
    np.testing.assert_array_equal(trained, 4 * fives)


def test_an_archive_may_say_what_it_is(tmp_path):
    source = np.array("synthetic scribbles,\n3 writers")
    assert _load(_save(tmp_path, source=source)).source == "synthetic scribbles, 3 writers"


_IMAGES = small_files.arrays()["images"]
_MALFORMED = {
    "no images": ({"images": None}, "images"),
    "no labels": ({"labels": None}, "labels"),
    "no writer": ({"writer": None}, "writer"),
    "flat images": ({"images": _IMAGES.reshape(12, 784)}, "images"),
    "an image without a dimension": ({"images": np.uint8(3)}, "images"),
    "large images": ({"images": np.zeros((12, 32, 32), np.uint8)}, "images"),
    "boolean images": ({"images": _IMAGES > 0}, "images"),
    "complex images": ({"images": _IMAGES * 1j}, "images"),
    "object images": ({"images": _IMAGES.astype(object)}, "images"),
    "NaN images": ({"images": np.full((12, 28, 28), np.nan)}, "NaN"),
    "infinite images": ({"images": np.full((12, 28, 28), np.inf)}, "infinite"),
    "floats above 1": ({"images": _IMAGES.astype(np.float32)}, "0 to 1"),
    "floats below 0": ({"images": _IMAGES / -255.0}, "0 to 1"),
    "integers above 255": ({"images": _IMAGES.astype(np.int32) * 2}, "0 to 255"),
    "integers below 0": ({"images": -_IMAGES.astype(np.int16)}, "0 to 255"),
    "no examples": (
        {"images": np.zeros((0, 28, 28), np.uint8), "labels": np.zeros(0, int), "writer": np.zeros(0, str)},
        "empty",
    ),
    "fewer labels": ({"labels": np.zeros(11, int)}, "labels"),
    "more writers": ({"writer": np.array(["w"] * 13)}, "writer"),
    "labels in two dimensions": ({"labels": np.zeros((12, 1), int)}, "labels"),
    "float labels": ({"labels": np.zeros(12)}, "labels"),
    "object labels": ({"labels": np.zeros(12, object)}, "labels"),
    "negative labels": ({"labels": _with("labels", 3, -1)}, "labels"),
    "a label beyond 62 classes": ({"labels": _with("labels", 3, 62)}, "0 to 61"),
    "a label beyond its classes": ({"labels": np.arange(12) % 4, "classes": np.array(list("ABC"))}, "0 to 2"),
    "float writers": ({"writer": np.zeros(12)}, "writer"),
    "object writers": ({"writer": np.array(["w"] * 12, object)}, "writer"),
    "a foreign alphabet": ({"labels": np.zeros(12, int), "classes": np.array(["α", "β"])}, "classes"),
    "a class named twice": ({"labels": np.zeros(12, int), "classes": np.array(["a", "a"])}, "classes"),
    "no classes": ({"labels": np.zeros(12, int), "classes": np.zeros(0, "U1")}, "classes"),
    "classes in two dimensions": ({"classes": np.array([archives.CLASSES])}, "classes"),
    "another word in split": ({"split": np.array(["train"] * 11 + ["valid"])}, "valid"),
    "a short split": ({"split": np.array(["train"] * 11)}, "split"),
    "another ink": ({"ink": np.array("blue")}, "blue"),
    "a number for ink": ({"ink": np.array(1)}, "ink"),
    "a list for ink": ({"ink": np.array(["dark"])}, "ink has shape (1,): a single value"),
}


@pytest.mark.parametrize(("changes", "name"), _MALFORMED.values(), ids=_MALFORMED.keys())
def test_a_malformed_archive_is_refused_in_one_line(tmp_path, changes, name):
    path = _save(tmp_path, **changes)
    small_files.refusal(_load, path, names=[path, name])


def test_a_missing_file_is_refused(tmp_path):
    small_files.refusal(_load, tmp_path / "none.npz", names=["none.npz", "no such file"])


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04"], ids=["empty", "text", "stub"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    small_files.refusal(_load, path, names=[path])


def test_a_single_array_under_the_name_of_an_archive_is_refused(tmp_path):
    path = tmp_path / "array.npz"
    with open(path, "wb") as file:
        np.save(file, _IMAGES)
    small_files.refusal(_load, path, names=[path])


def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path):
    whole = _save(tmp_path).read_bytes()
    path = tmp_path / "cut.npz"
    for length in np.linspace(0, len(whole) - 1, 40, dtype=int):
        path.write_bytes(whole[:length])
        small_files.refusal(_load, path, names=[path])


def test_a_damaged_archive_is_refused_or_reads_the_same(tmp_path):
    whole = _save(tmp_path).read_bytes()
    expected = _load(_save(tmp_path))
    path = tmp_path / "damaged.npz"
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            archive = _load(path)
        except errors.UserError as error:
            messages.append(str(error))
        else:
            np.testing.assert_array_equal(archive.images, expected.images)
            np.testing.assert_array_equal(archive.labels, expected.labels)
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


def _header(shape, dtype):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((20_000_000, 28, 28), "GiB"), ((13, 28, 28), "size that its header declares"), ((10**18, 28, 28), "GiB")],
    ids=["more than is read", "more than there is", "more than any machine holds"],
)
def test_an_archive_that_declares_too_much_is_refused_before_it_is_read(tmp_path, shape, reason):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", _header(shape, "|u1") + bytes(12 * 28 * 28))
    small_files.refusal(_load, path, names=[path, reason])


def test_an_archive_for_which_there_is_no_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=2 * 12 * 784 - 1))
    small_files.refusal(_load, _save(tmp_path), names=["images takes", "GiB are free"])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=2 * 12 * 784))
    assert len(_load(_save(tmp_path)).labels) == 12


@unipen.needed
def test_the_real_archive_loads():
    archive = sources.load(small_files.options(unipen.ARCHIVE))
    writers, inverse = np.unique(archive.client, return_inverse=True)
    tested = np.bincount(inverse, archive.is_test)
    trained = np.bincount(inverse, ~archive.is_test)
    assert len(archive.labels) == 48_224
    assert len(writers) == 257
    assert tested.min() >= 1
    assert trained.min() >= 1
    assert archive.is_test.mean() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"(12,", b"(-2,"),
        (b"(12,", b"(012"),
        (b"(12,", b"(1j,"),
        (b"'descr'", b"b'desc'"),
        (b"{'", b"(('"),
        (b"'", b'"'),
    ],
)
def test_an_array_with_a_damaged_header_is_refused(tmp_path, old, new):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in small_files.arrays().items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            content = buffer.getvalue()
            archive.writestr(f"{name}.npy", content.replace(old, new, 1) if name == "labels" else content)
    small_files.refusal(_load, path, names=[path])
