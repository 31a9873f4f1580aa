"""Reading gallery.npz."""

import numpy as np
import pytest

from analysis import gallery
from analysis import runs as runs_lib
from analysis.report import galleries
from tests.analysis.report.conftest import write_gallery
from tff_personalization.errors import UserError


@pytest.fixture
def run(make_run):
    directory = make_run()
    write_gallery(directory, "NA")
    return runs_lib.read(directory)


def test_images_have_their_outcomes_and_classes_their_names(run):
    found = gallery.read(run)
    assert found.table["client"].tolist() == ["NA"] * 4
    assert found.table["outcome"].tolist() == ["put right", "put wrong", "still wrong", "right"]
    assert found.table["after"].tolist() == ["a", "<i>", "–", "b"]
    assert found.counts().loc["NA"].tolist() == [1, 1, 1, 1]


def test_a_writers_strip_holds_the_images_in_the_order_of_outcomes(run):
    import base64
    import io

    from PIL import Image

    (writer,) = galleries.writers(run).values()
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(writer["strip"]))))
    with np.load(run.directory / "gallery.npz") as file:
        np.testing.assert_array_equal(strip, np.concatenate(file["images"], axis=1))
    assert writer["outcomes"] == [0, 1, 2, 3]
    assert writer["before"] == ["b", "b", "a", "b"]


def test_a_run_without_a_gallery_says_what_makes_one(make_run):
    with pytest.raises(runs_lib.NotRecordedError, match=r"tools\.gallery"):
        gallery.read(runs_lib.read(make_run()))


@pytest.mark.parametrize("damage", ["cut", "compression", "labels", "pickle"])
def test_a_damaged_gallery_is_reported(run, damage):
    path = run.directory / "gallery.npz"
    with np.load(path) as file:
        arrays = dict(file)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "compression":
        content, of_first = path.read_bytes(), 10  # where the directory's entry has it
        at = content.index(b"PK\x01\x02") + of_first
        path.write_bytes(content[:at] + b"\x63" + content[at + 1 :])
    elif damage == "labels":
        np.savez(path, **{**arrays, "labels": arrays["labels"] + 3})
    else:
        np.savez(path, **{**arrays, "client": np.array([{}] * 4, object)})
    with pytest.raises(UserError, match=r"gallery\.npz"):
        gallery.read(run)
