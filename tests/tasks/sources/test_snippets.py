"""Text from SQLite databases in TFF's form, and TFF's own loader on the same file."""

import numpy as np
import pytest
import tensorflow_federated as tff

from tests.tasks.sources import small_files
from tff_personalization.models import characters
from tff_personalization.tasks import sources
from tff_personalization.tasks.sources import tff_shakespeare

SAID = {
    ("train", "HAMLET_GHOST"): ["Mark me.", "My hour is almost come,\nWhen I " + "must " * 30],
    ("test", "HAMLET_GHOST"): ["Adieu, adieu!"],
    ("train", "MACBETH_DUNCAN"): ["What bloody man is that?"],
    ("test", "MACBETH_DUNCAN"): ["O worthiest cousin!", "Give me your hand;"],
}


def write(path, **changes):
    rows = [
        (split, client, small_files.serialize_snippet(snippet))
        for (split, client), snippets in SAID.items()
        for snippet in snippets
    ]
    return small_files.write_sqlite(path, changes.get("rows", rows), changes.get("metadata"))


def load(client_data, cache_dir=""):
    options = small_files.options(client_data, len(characters.CLASSES), cache_dir=cache_dir)
    return sources.load(options, sources.TEXT)


def test_every_client_has_the_sequences_of_its_snippets(tmp_path):
    archive = load(write(tmp_path / "play.sqlite"))
    assert archive.clients == ("HAMLET_GHOST", "MACBETH_DUNCAN")
    assert archive.source == "play, 2 roles"
    for (split, client), snippets in SAID.items():
        own = (archive.client == client) & (archive.is_test == (split == "test"))
        x, y = characters.to_sequences(snippet.encode() for snippet in snippets)
        np.testing.assert_array_equal(archive.x[own], x)
        np.testing.assert_array_equal(archive.y[own], y)


def test_tffs_own_loader_reads_the_same_snippets(tmp_path):
    write(tmp_path / "shakespeare.sqlite")
    archive = load("tff", cache_dir=tmp_path)
    for is_test, part in zip((False, True), tff.simulation.datasets.shakespeare.load_data(str(tmp_path)), strict=True):
        for client in part.client_ids:
            examples = part.create_tf_dataset_for_client(client).as_numpy_iterator()
            x, _ = characters.to_sequences(example["snippets"] for example in examples)
            own = (archive.client == client) & (archive.is_test == is_test)
            # TFF reads a client's snippets in its own order.
            np.testing.assert_array_equal(np.sort(archive.x[own], axis=0), np.sort(x, axis=0))
    assert archive.source == "shakespeare, 2 roles"


def test_a_file_with_the_published_number_of_roles_is_called_tffs(tmp_path, monkeypatch):
    write(tmp_path / "shakespeare.sqlite")
    monkeypatch.setattr(tff_shakespeare, "_ROLES", 2)
    assert load("tff", cache_dir=tmp_path).source == "TFF's Shakespeare"


def test_a_failed_download_names_every_way_out_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(cache_dir):
        raise OSError("no network")

    monkeypatch.setattr(tff.simulation.datasets.shakespeare, "load_data", fail)
    small_files.refusal(
        load,
        "tff",
        tmp_path / "cache",
        names=["shakespeare.sqlite", "no network", "tff-datasets-public/shakespeare.sqlite.lzma", "plays", ".sqlite"],
    )
    assert not list((tmp_path / "cache").iterdir())


def test_a_file_that_lacks_an_example_is_refused(tmp_path):
    path = write(
        tmp_path / "a.sqlite",
        rows=[("train", "A", small_files.serialize_snippet("a")), ("test", "A", small_files.serialize_snippet("b"))],
        metadata=[("A", "train", 2), ("A", "test", 1)],
    )
    small_files.refusal(load, path, names=[path, "1 of the 2", "client A"])


def test_a_client_that_the_metadata_does_not_count_is_refused(tmp_path):
    rows = [("train", "A", small_files.serialize_snippet("a")), ("test", "B", small_files.serialize_snippet("b"))]
    path = write(tmp_path / "a.sqlite", rows=rows, metadata=[("A", "train", 1), ("A", "test", 0)])
    small_files.refusal(load, path, names=[path, "does not count"])


def test_images_are_not_text(tmp_path):
    path = small_files.write_sqlite(tmp_path / "emnist.sqlite", small_files.sqlite_rows())
    small_files.refusal(load, path, names=[path, "snippets"])


@pytest.mark.parametrize("name", ["play.npz", "play.csv"])
def test_a_file_of_another_kind_is_refused_with_what_can_be_read(tmp_path, name):
    (tmp_path / name).write_text("?")
    message = small_files.refusal(load, tmp_path / name, names=[name, "plays", "tff", ".sqlite"])
    assert "handwriting" not in message
