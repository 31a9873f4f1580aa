import subprocess
import sys

import numpy as np
import pytest

from tests.tasks.sources import small_files
from tff_personalization.tasks import archives, sources


def _save(path, **changes):
    np.savez(path, **{**small_files.arrays(), **changes})
    return path


@pytest.mark.parametrize("name", ["handwritten", "none.npz", "none.sqlite", "", "a/b"])
def test_an_unknown_source_is_refused_with_the_known_ones(name):
    small_files.refusal(
        sources.load,
        small_files.options(name),
        names=[f"--client_data={name}", "handwriting", "digits", "tff", ".npz", ".sqlite"],
    )


def test_a_directory_is_refused(tmp_path):
    small_files.refusal(sources.load, small_files.options(tmp_path), names=[f"--client_data={tmp_path}", "directory"])


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("images and labels")
    small_files.refusal(sources.load, small_files.options(path), names=[f"--client_data={path}", ".npz", ".sqlite"])


def test_a_name_goes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text("")
    assert sources.load(small_files.options("digits")).source.startswith("scikit-learn digits")


@pytest.mark.parametrize("name", ["a.npz", "A.NPZ"])
def test_an_npz_file_is_a_by_writer_archive(tmp_path, name):
    with open(tmp_path / name, "wb") as file:
        np.savez(file, **small_files.arrays())
    np.testing.assert_array_equal(
        sources.load(small_files.options(tmp_path / name)).images, small_files.arrays()["images"]
    )


@pytest.mark.parametrize("name", ["a.sqlite", "a.sqlite3", "a.db", "a.SQLITE", "a", "a.data"])
def test_an_sqlite_file_is_known_by_its_name_or_its_first_bytes(tmp_path, name):
    path = small_files.write_sqlite(tmp_path / name, small_files.sqlite_rows())
    assert len(sources.load(small_files.options(path)).labels) == 12


def test_a_registered_source_is_found_by_its_name(monkeypatch):
    archive = archives.CharacterArchive.from_names(
        np.zeros((1, 28, 28), np.uint8), np.array([5]), np.array(["w"]), np.array([False]), archives.CLASSES, "mine"
    )
    monkeypatch.setitem(sources.SOURCES, "mine", lambda options: archive)
    assert sources.load(small_files.options("mine")) is archive


def test_with_10_classes_only_the_digits_and_their_writers_remain(tmp_path):
    labels = np.array([1, 40, 9, 10, 50, 0])
    writer = np.array(["a", "b", "c", "a", "b", "c"])
    split = np.array(["train", "train", "train", "test", "test", "test"])
    images = small_files.arrays(count=6)["images"]
    path = _save(tmp_path / "a.npz", images=images, labels=labels, writer=writer, split=split)
    archive = sources.load(small_files.options(path, num_classes=10))
    assert archive.labels.tolist() == [1, 9, 0]
    assert archive.client.tolist() == ["a", "c", "c"]
    assert archive.is_test.tolist() == [False, False, True]
    assert archive.classes == tuple("0123456789")
    np.testing.assert_array_equal(archive.images, images[[0, 2, 5]])


def test_a_writer_whose_digits_are_all_test_examples_stays_with_10_classes(tmp_path):
    changes = {
        "images": small_files.arrays(count=4)["images"],
        "labels": np.array([40, 3, 4, 5]),
        "writer": np.array(["a", "a", "b", "b"]),
        "split": np.array(["train", "test", "train", "test"]),
    }
    path = _save(tmp_path / "a.npz", **changes)
    assert sources.load(small_files.options(path, num_classes=10)).client.tolist() == ["a", "b", "b"]


def test_only_letters_leave_nothing_for_10_classes(tmp_path):
    path = _save(tmp_path / "a.npz", labels=np.arange(20, 32))
    small_files.refusal(
        sources.load, small_files.options(path, num_classes=10), names=[f"--client_data={path}", "10 classes"]
    )


def test_a_client_may_have_only_test_examples(tmp_path):
    rows = [*small_files.sqlite_rows(), *small_files.sqlite_rows(splits=("all_test",), clients=("lonely",))]
    archive = sources.load(small_files.options(small_files.write_sqlite(tmp_path / "a.sqlite", rows)))
    assert archive.is_test[archive.client == "lonely"].all()


def test_only_test_examples_leave_nothing_to_train_on(tmp_path):
    path = _save(tmp_path / "a.npz", split=np.full(12, "test"))
    small_files.refusal(sources.load, small_files.options(path), names=[f"--client_data={path}", "train example"])


def test_reading_an_archive_does_not_import_tensorflow(tmp_path):
    path = _save(tmp_path / "a.npz")
    program = (
        "import sys\n"
        "from tff_personalization.tasks import sources\n"
        f"sources.load(sources.SourceOptions({str(path)!r}, 62, 0, ''))\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
