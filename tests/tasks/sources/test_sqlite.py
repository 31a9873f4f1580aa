import contextlib
import functools
import os
import sqlite3

import numpy as np
import pytest

from tests.tasks.sources import small_files
from tff_personalization import errors
from tff_personalization.tasks import archives, sources
from tff_personalization.tasks.sources import sqlite


def _load(path, num_classes=62):
    return sqlite.load(small_files.options(path, num_classes))


def _expected(rows, splits):
    """Images, labels, clients and test flags of the rows of some splits, in the project's convention and order."""
    rows = [
        row
        for split in splits
        for client in sorted({row[1] for row in rows})
        for row in rows
        if row[:2] == (split, client)
    ]
    images = np.array([np.rint(255 - 255 * pixels) for _, _, pixels, _ in rows])
    return images, [row[3] for row in rows], [row[1] for row in rows], [row[0].endswith("test") for row in rows]


def _assert_equal(archive, rows, splits):
    images, labels, writer, is_test = _expected(rows, splits)
    np.testing.assert_array_equal(archive.images, images)
    np.testing.assert_array_equal(archive.labels, labels)
    np.testing.assert_array_equal(archive.client, writer)
    np.testing.assert_array_equal(archive.is_test, is_test)


def test_background_1_becomes_0_and_ink_0_becomes_255(tmp_path):
    pixels = np.ones((28, 28))
    pixels[3, 5] = 0
    rows = [("all_train", "f0", pixels, 61), ("all_test", "f0", pixels, 0)]
    archive = _load(small_files.write_sqlite(tmp_path / "small.sqlite", rows))
    expected = np.zeros((28, 28))
    expected[3, 5] = 255
    np.testing.assert_array_equal(archive.images, [expected, expected])
    assert archive.labels.tolist() == [61, 0]
    assert archive.classes == archives.CLASSES
    assert archive.source == "small, 1 writers"


def test_every_example_keeps_its_client_and_part(tmp_path):
    rows = small_files.sqlite_rows(clients=("f0", "f1", "f2"), per_part=4, max_label=62)
    order = np.random.default_rng(0).permutation(len(rows))
    rows = [rows[i] for i in order]
    _assert_equal(_load(small_files.write_sqlite(tmp_path / "a.sqlite", rows)), rows, ("all_train", "all_test"))


def test_reading_in_chunks_changes_nothing(tmp_path, monkeypatch):
    rows = small_files.sqlite_rows(per_part=5)
    monkeypatch.setattr(sqlite, "_CHUNK", 3)
    _assert_equal(_load(small_files.write_sqlite(tmp_path / "a.sqlite", rows)), rows, ("all_train", "all_test"))


def test_a_path_may_have_the_marks_of_a_uri(tmp_path):
    rows = small_files.sqlite_rows()
    path = small_files.write_sqlite(tmp_path / "a b?c#d%20.sqlite", rows)
    _assert_equal(_load(path), rows, ("all_train", "all_test"))


_PAIRS = {
    "all": ("all_train", "all_test"),
    "digits": ("digits_only_train", "digits_only_test"),
    "plain": ("train", "test"),
    "other": ("held_in_train", "held_in_test"),
}


@pytest.mark.parametrize(
    ("present", "num_classes", "chosen"),
    [
        (("all", "digits", "plain"), 62, "all"),
        (("all", "digits", "plain"), 10, "digits"),
        (("all", "plain"), 10, "all"),
        (("plain",), 62, "plain"),
        (("digits",), 62, "digits"),
        (("other",), 10, "other"),
    ],
)
def test_the_splits_are_chosen_by_the_number_of_classes(tmp_path, present, num_classes, chosen):
    rows = small_files.sqlite_rows(splits=[split for pair in present for split in _PAIRS[pair]])
    archive = _load(small_files.write_sqlite(tmp_path / "a.sqlite", rows), num_classes)
    _assert_equal(archive, rows, _PAIRS[chosen])


@pytest.mark.parametrize("split", ["default_split", "all_train"])
def test_a_single_split_is_all_train_until_it_is_divided(tmp_path, split):
    path = small_files.write_sqlite(tmp_path / "a.sqlite", small_files.sqlite_rows(splits=(split,)))
    assert not _load(path).is_test.any()
    assert sources.load(small_files.options(path)).is_test.sum() == 2


def test_bright_ink_is_found_and_left_bright(tmp_path):
    image = np.zeros((28, 28))
    image[8:20, 12:16] = 1
    rows = [(split, client, image, 1) for split in ("all_train", "all_test") for client in ("a", "b")]
    archive = _load(small_files.write_sqlite(tmp_path / "a.sqlite", rows))
    np.testing.assert_array_equal(archive.images, np.stack([np.uint8(255 * image)] * 4))
    assert "bright ink on a dark background" in archive.notes[0]


@pytest.mark.parametrize(
    "splits",
    [("all_test", "digits_only_train"), ("left", "right"), ("a_train", "a_test", "b_train", "b_test")],
)
def test_splits_that_do_not_make_one_pair_are_refused_and_named(tmp_path, splits):
    path = small_files.write_sqlite(tmp_path / "a.sqlite", small_files.sqlite_rows(splits=splits))
    small_files.refusal(_load, path, names=[path, *splits])


def test_a_description_in_the_file_is_its_source(tmp_path):
    path = small_files.write_sqlite(tmp_path / "a.sqlite", small_files.sqlite_rows())
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE source (description TEXT)")
        connection.execute("INSERT INTO source VALUES ('synthetic scribbles')")
    assert _load(path).source == "synthetic scribbles"


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"\xff\xff\xff", "tf.Example"),
        (b"", "tf.Example"),
        ("text", "tf.Example"),
        (17, "tf.Example"),
        (None, "tf.Example"),
        (small_files.serialize(np.ones(783), 1), "tf.Example"),
        (small_files.serialize(np.ones(784), []), "tf.Example"),
        (small_files.serialize(np.ones(784), [1, 2]), "tf.Example"),
        (small_files.serialize(np.full(784, 1.5), 1), "outside 0"),
        (small_files.serialize(np.full(784, np.nan), 1), "outside 0"),
        (small_files.serialize(np.ones(784), -1), "0 to 61"),
        (small_files.serialize(np.ones(784), 62), "0 to 61"),
    ],
    ids=[
        "not a message",
        "empty",
        "text",
        "number",
        "null",
        "too few pixels",
        "no label",
        "two labels",
        "pixels above 1",
        "NaN pixels",
        "negative label",
        "label 62",
    ],
)
def test_a_malformed_example_is_refused_in_one_line(tmp_path, blob, reason):
    rows = [*small_files.sqlite_rows(), ("all_train", "f0", blob)]
    path = small_files.write_sqlite(tmp_path / "a.sqlite", rows)
    small_files.refusal(_load, path, names=[path, reason])


def test_a_letter_among_the_digits_is_refused(tmp_path):
    rows = [*small_files.sqlite_rows(splits=_PAIRS["digits"]), ("digits_only_train", "f0", np.ones(784), 10)]
    path = small_files.write_sqlite(tmp_path / "a.sqlite", rows)
    small_files.refusal(_load, path, 10, names=[path, "0 to 9"])


_COMPLETE = [("f0", "all_train", 3), ("f0", "all_test", 3), ("f1", "all_train", 3), ("f1", "all_test", 3)]


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([*_COMPLETE[:3], ("f1", "all_test", 4)], "3 of the 4 examples of client f1 in all_test"),
        ([*_COMPLETE[:3], ("f1", "all_test", 2)], "does not count"),
        ([("f0", "all_train", 4), ("f0", "all_test", 2), *_COMPLETE[2:]], "3 of the 4 examples of client f0"),
        (_COMPLETE[:3], "does not count"),
        ([*_COMPLETE, ("f2", "all_train", 10**12)], "too short"),
        ([*_COMPLETE[:3], ("f1", "all_test", -3)], "-3"),
        ([*_COMPLETE[:3], ("f1", "all_test", "three")], "three"),
        ([(client, split, 0) for client, split, _ in _COMPLETE], "no example"),
        ([], "none"),
    ],
)
def test_examples_that_do_not_agree_with_the_metadata_are_refused(tmp_path, metadata, reason):
    path = small_files.write_sqlite(tmp_path / "a.sqlite", small_files.sqlite_rows(), metadata)
    small_files.refusal(_load, path, names=[path, reason])


def test_a_missing_file_is_refused(tmp_path):
    small_files.refusal(_load, tmp_path / "none.sqlite", names=["none.sqlite", "no such file"])
    assert not (tmp_path / "none.sqlite").exists()


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0" + bytes(2000)])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "other.sqlite"
    path.write_bytes(content)
    small_files.refusal(_load, path, names=[path, "delete it"])


def test_a_row_whose_length_is_damaged_is_refused(tmp_path):
    path = small_files.write_sqlite(tmp_path / "x.sqlite", small_files.sqlite_rows(clients=("f0",), per_part=1))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA page_size = 512; VACUUM")  # A row does not fit into a page.
    content = path.read_bytes()
    row = content.index(b"all_trainf0")
    path.write_bytes(content[: row - 7] + b"\xff" * 6 + content[row - 1 :])
    with pytest.raises(errors.UserError, match=r"SQLite is out of memory: .*the file is damaged"):
        _load(path)


def test_a_truncated_database_is_refused_wherever_it_ends(tmp_path):
    whole = small_files.write_sqlite(tmp_path / "whole.sqlite", small_files.sqlite_rows(per_part=10)).read_bytes()
    path = tmp_path / "cut.sqlite"
    for length in np.linspace(0, len(whole) - 1, 25, dtype=int):
        path.write_bytes(whole[:length])
        small_files.refusal(_load, path, names=[path, "delete it"])


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("DROP TABLE examples", "no table 'examples'"),
        ("DROP TABLE client_metadata", "no table 'client_metadata'"),
        ("ALTER TABLE examples RENAME COLUMN client_id TO writer", "no column 'client_id'"),
        ("ALTER TABLE client_metadata DROP COLUMN num_examples", "no column 'num_examples'"),
    ],
)
def test_a_database_of_another_form_is_refused(tmp_path, statement, name):
    path = small_files.write_sqlite(tmp_path / "a.sqlite", small_files.sqlite_rows())
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    small_files.refusal(_load, path, names=[path, name])


@pytest.mark.parametrize(
    ("name", "said"), [("NULL", "has no client"), ("x'ff'", r"the client b'\xff' has a name that is")]
)
def test_a_client_without_a_name_of_text_is_refused(name, said, tmp_path):
    path = small_files.write_sqlite(tmp_path / "a.sqlite", small_files.sqlite_rows())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"UPDATE examples SET client_id = {name}; UPDATE client_metadata SET client_id = {name}"
        )
    small_files.refusal(_load, path, names=[path, said])


def test_a_database_that_is_being_written_is_not_called_damaged(tmp_path, monkeypatch):
    path = small_files.write_sqlite(tmp_path / "a.sqlite", small_files.sqlite_rows())
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, timeout=0))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        message = small_files.refusal(_load, path, names=[path, "database is locked: close the program that writes"])
    assert "delete" not in message


def test_reading_does_not_change_the_file(tmp_path):
    path = small_files.write_sqlite(tmp_path / "a.sqlite", small_files.sqlite_rows())
    before = path.read_bytes()
    path.chmod(0o400)
    _load(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.sqlite"]


def _cached(path, cache_dir, num_classes=62):
    return sqlite.load(small_files.options(path, num_classes, cache_dir=cache_dir))


def test_the_second_load_reads_the_cache_and_gives_the_same(tmp_path, monkeypatch):
    rows = small_files.sqlite_rows(clients=("f0", "f1", "f2"))
    path = small_files.write_sqlite(tmp_path / "a.sqlite", rows)
    first = _cached(path, tmp_path / "cache")
    monkeypatch.setattr(sqlite, "open_database", None)
    second = _cached(path, tmp_path / "cache")
    for archive in (first, second):
        _assert_equal(archive, rows, ("all_train", "all_test"))
        assert archive.source == "a, 3 writers"


def test_a_changed_file_is_read_again_and_the_old_cache_is_removed(tmp_path):
    path = tmp_path / "a.sqlite"
    for seed in (0, 1):
        path.unlink(missing_ok=True)
        rows = small_files.sqlite_rows(seed=seed)
        _assert_equal(_cached(small_files.write_sqlite(path, rows), tmp_path), rows, ("all_train", "all_test"))
        assert len(list(tmp_path.glob("a-*/*"))) == 1


def test_ten_classes_do_not_take_the_cache_of_62(tmp_path):
    rows = small_files.sqlite_rows(splits=("all_train", "all_test", *_PAIRS["digits"]))
    path = small_files.write_sqlite(tmp_path / "a.sqlite", rows)
    for num_classes, pair in ((62, "all"), (10, "digits"), (62, "all")):
        _assert_equal(_cached(path, tmp_path, num_classes), rows, _PAIRS[pair])


def test_files_of_one_name_do_not_share_a_cache(tmp_path):
    for seed, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        rows = small_files.sqlite_rows(seed=seed)
        path = small_files.write_sqlite(tmp_path / folder / "a.sqlite", rows)
        os.utime(path, (0, 0))
        _assert_equal(_cached(path, tmp_path), rows, ("all_train", "all_test"))


def test_a_file_that_is_refused_leaves_no_cache(tmp_path):
    rows = [*small_files.sqlite_rows(), ("all_train", "f0", b"\xff")]
    path = small_files.write_sqlite(tmp_path / "a.sqlite", rows)
    small_files.refusal(_cached, path, tmp_path, names=[path])
    assert not list(tmp_path.glob("a-*/*"))
