import io
import lzma
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow_federated as tff

from tests.tasks.sources import small_files
from tff_personalization.tasks.sources import tff_emnist

_SPLITS = ("all_train", "all_test", "digits_only_train", "digits_only_test")


def _options(cache_dir, num_classes=62):
    return small_files.options("tff", num_classes, cache_dir=cache_dir)


def _write(path):
    return small_files.write_sqlite(path, small_files.sqlite_rows(splits=_SPLITS))


class _Response(io.BytesIO):
    headers: dict[str, str] = {}  # noqa: RUF012


def _serve(monkeypatch, respond):
    """Makes every download call `respond()`, and returns the list of requested addresses."""
    asked = []

    def urlopen(address):
        asked.append(address)
        return respond()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


@pytest.mark.parametrize(("num_classes", "only_digits"), [(62, False), (10, True)])
def test_the_images_are_those_of_tffs_own_loader(tmp_path, num_classes, only_digits):
    _write(tmp_path / "emnist_all.sqlite")
    archive = tff_emnist.load(_options(tmp_path, num_classes))
    parts = tff.simulation.datasets.emnist.load_data(only_digits=only_digits, cache_dir=str(tmp_path))
    for is_test, part in zip((False, True), parts, strict=True):
        assert part.client_ids == sorted(set(archive.client[archive.is_test == is_test]))
        for client in part.client_ids:
            examples = list(part.create_tf_dataset_for_client(client).as_numpy_iterator())
            own = (archive.client == client) & (archive.is_test == is_test)
            np.testing.assert_array_equal(archive.labels[own], [example["label"] for example in examples])
            pixels = np.array([example["pixels"] for example in examples])
            np.testing.assert_allclose(1 - archive.images[own] / 255, pixels, atol=1e-6)


def test_a_file_that_is_there_is_not_downloaded(tmp_path, monkeypatch):
    asked = _serve(monkeypatch, lambda: pytest.fail("downloaded"))
    _write(tmp_path / "emnist_all.sqlite")
    tff_emnist.load(_options(tmp_path))
    assert not asked


def test_without_a_cache_dir_tffs_own_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".tff").mkdir()
    _write(tmp_path / ".tff" / "emnist_all.sqlite")
    assert len(tff_emnist.load(_options("")).labels) == 12


def test_a_file_that_is_not_there_is_downloaded_once(tmp_path, monkeypatch):
    compressed = lzma.compress(_write(tmp_path / "served.sqlite").read_bytes())
    asked = _serve(monkeypatch, lambda: _Response(compressed))
    cache_dir = tmp_path / "new" / "cache"
    first = tff_emnist.load(_options(cache_dir))
    second = tff_emnist.load(_options(cache_dir))
    assert len(asked) == 1
    np.testing.assert_array_equal(first.images, second.images)
    assert [entry.name for entry in cache_dir.iterdir() if entry.is_file()] == ["emnist_all.sqlite"]
    assert not list(cache_dir.glob("download_*"))


def _unreachable():
    raise urllib.error.URLError("[Errno -2] Name or service\nnot known")


def _cut_short(tmp_path):
    return lzma.compress(_write(tmp_path / "served.sqlite").read_bytes())[:-5000]


@pytest.mark.parametrize(
    "respond",
    [
        lambda tmp_path: _unreachable(),
        lambda tmp_path: _Response(b"<html>Please log in</html>"),
        lambda tmp_path: _Response(b""),
        lambda tmp_path: _Response(lzma.compress(b"not a database" * 100)),
        lambda tmp_path: _Response(_cut_short(tmp_path)),
    ],
    ids=["no network", "a log-in page", "nothing", "another file", "cut short"],
)
def test_a_failed_download_is_one_line_with_every_way_out_and_leaves_nothing(tmp_path, monkeypatch, respond):
    _serve(monkeypatch, lambda: respond(tmp_path))
    cache_dir = tmp_path / "cache"
    small_files.refusal(
        tff_emnist.load,
        _options(cache_dir),
        names=[
            "--client_data=tff",
            "emnist_all.sqlite",
            cache_dir,
            "tff-datasets-public/emnist_all.sqlite.lzma",
            "--client_data=handwriting",
            "--client_data=digits",
            ".npz",
            ".sqlite file",
        ],
    )
    assert not list(cache_dir.iterdir())


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    _serve(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        tff_emnist.load(_options(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_cache_dir_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    small_files.refusal(tff_emnist.load, _options(tmp_path / "file" / "cache"), names=["file/cache"])


def test_a_partial_file_that_an_interrupted_download_left_is_refused(tmp_path):
    whole = _write(tmp_path / "whole.sqlite").read_bytes()
    (tmp_path / "emnist_all.sqlite").write_bytes(whole[: len(whole) // 2])
    small_files.refusal(tff_emnist.load, _options(tmp_path), names=[tmp_path / "emnist_all.sqlite", "delete it"])


def test_a_file_of_the_published_size_is_called_federated_emnist(tmp_path, monkeypatch):
    _write(tmp_path / "emnist_all.sqlite")
    monkeypatch.setattr(tff_emnist, "_PUBLISHED_SIZE", {62: (6, 6), 10: (6, 6)})
    assert tff_emnist.load(_options(tmp_path, 62)).source == "Federated EMNIST"
    assert tff_emnist.load(_options(tmp_path, 10)).source == "Federated EMNIST digits"


def test_a_file_of_another_size_is_not_called_federated_emnist(tmp_path):
    _write(tmp_path / "emnist_all.sqlite")
    assert tff_emnist.load(_options(tmp_path)).source == "emnist_all, 2 writers"
