import sys

import numpy as np
import pytest
import tensorflow_federated as tff

from tests import forked
from tests.tasks.sources import small_files
from tff_personalization.tasks import sources
from tff_personalization.tools import convert_archive


def _archive(path, **changes):
    np.savez(path, **{**small_files.arrays(count=60), **changes})
    return str(path)


def _run(*arguments):
    command = [sys.executable, "-m", "tff_personalization.tools.convert_archive", *map(str, arguments)]
    return forked.run(command, capture_output=True, text=True, check=False)


def _sorted(archive):
    """The arrays in an order that does not depend on the file's."""
    order = np.lexsort((archive.images.reshape(len(archive.images), -1).sum(axis=1), archive.labels, archive.client))
    return archive.images[order], archive.labels[order], archive.client[order], archive.is_test[order]


def _assert_same(actual, expected):
    for one, other in zip(_sorted(actual), _sorted(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_database_reads_as_the_archive_does(tmp_path):
    path, database = _archive(tmp_path / "a.npz"), tmp_path / "a.sqlite"
    convert_archive.convert(path, str(database), seed=3)
    expected = sources.load(small_files.options(path, seed=3))
    actual = sources.load(small_files.options(database))
    _assert_same(actual, expected)
    assert actual.source == expected.source == "a, 3 writers"


def test_the_digits_are_the_archives_digits_with_the_same_split(tmp_path):
    path = _archive(tmp_path / "a.npz", split=np.array(["train", "train", "test"] * 20), writer=np.arange(60) // 30)
    database = tmp_path / "a.sqlite"
    convert_archive.convert(path, str(database), seed=0)
    _assert_same(
        sources.load(small_files.options(database, num_classes=10)),
        sources.load(small_files.options(path, num_classes=10)),
    )


def test_tffs_own_loader_opens_the_database(tmp_path):
    path, database = _archive(tmp_path / "a.npz"), tmp_path / "emnist_all.sqlite"
    convert_archive.convert(path, str(database), seed=0)
    archive = sources.load(small_files.options(path))
    parts = tff.simulation.datasets.emnist.load_data(only_digits=False, cache_dir=str(tmp_path))
    for is_test, part in zip((False, True), parts, strict=True):
        for client in part.client_ids:
            own = (archive.client == client) & (archive.is_test == is_test)
            examples = list(part.create_tf_dataset_for_client(client).as_numpy_iterator())
            assert [example["label"] for example in examples] == archive.labels[own].tolist()
            pixels = np.array([example["pixels"] for example in examples])
            np.testing.assert_allclose(pixels, 1 - archive.images[own] / 255, atol=1e-6)
        assert part.client_ids == sorted(set(archive.client))


def test_an_archive_without_digits_makes_no_splits_of_digits(tmp_path):
    path, database = _archive(tmp_path / "a.npz", labels=np.arange(60) % 50 + 10), tmp_path / "a.sqlite"
    convert_archive.convert(path, str(database), seed=0)
    assert not tff.simulation.datasets.SqlClientData(str(database), "digits_only_train").client_ids
    assert len(sources.load(small_files.options(database)).labels) == 60


def test_the_clients_that_an_archive_holds_out_are_held_out_by_the_database(tmp_path):
    path = _archive(tmp_path / "a.npz", split=np.where(np.arange(60) % 3 == 1, "test", "train"))
    database = tmp_path / "a.sqlite"
    convert_archive.convert(path, str(database), seed=0)
    for num_classes in (62, 10):
        for source in (path, database):
            assert sources.load(small_files.options(source, num_classes=num_classes)).held_out == ("w1",)


def test_synthetic_data_stays_synthetic(tmp_path):
    path = _archive(tmp_path / "a.npz", source=np.array("synthetic scribbles, 3 writers"))
    convert_archive.convert(path, str(tmp_path / "a.sqlite"), seed=0)
    assert sources.load(small_files.options(tmp_path / "a.sqlite")).source == "synthetic scribbles, 3 writers"


def test_an_existing_file_is_not_overwritten(tmp_path):
    database = tmp_path / "a.sqlite"
    database.write_text("precious")
    small_files.refusal(convert_archive.convert, _archive(tmp_path / "a.npz"), str(database), 0, names=[database])
    assert database.read_text() == "precious"


def test_an_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch):
    path = _archive(tmp_path / "a.npz")
    written = []

    def interrupt(image, label):
        written.append(label)
        if len(written) == 30:
            raise KeyboardInterrupt
        return b""

    monkeypatch.setattr(convert_archive, "_serialize", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_archive.convert(path, str(tmp_path / "a.sqlite"), seed=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_a_place_that_does_not_exist_is_refused(tmp_path):
    database = str(tmp_path / "none" / "a.sqlite")
    small_files.refusal(convert_archive.convert, _archive(tmp_path / "a.npz"), database, 0, names=[database])


@pytest.mark.parametrize("name", ["a.csv", "digits", "none.npz"])
def test_what_is_not_an_archive_is_refused(tmp_path, name):
    small_files.refusal(convert_archive.convert, name, str(tmp_path / "a.sqlite"), 0, names=[name, ".npz"])
    assert not list(tmp_path.iterdir())


def test_the_program_converts(tmp_path):
    path = _archive(tmp_path / "a.npz")
    assert _run(path, tmp_path / "a.sqlite", "--seed=3").returncode == 0
    _assert_same(
        sources.load(small_files.options(tmp_path / "a.sqlite")), sources.load(small_files.options(path, seed=3))
    )


def test_the_program_says_in_one_line_what_is_wrong(tmp_path):
    result = _run(tmp_path / "none.npz", tmp_path / "a.sqlite")
    assert result.returncode == 1
    assert "none.npz" in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
