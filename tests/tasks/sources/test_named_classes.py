"""The names of columns, classes and clients in tables and folders."""

import shutil

import pyarrow
import pyarrow.parquet
import pytest

from tests.tasks.sources import small_files, written_forms
from tff_personalization.tasks import sources
from tff_personalization.tasks.sources import named_classes


def load(path):
    return sources.load(small_files.options(path))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("path,client,label,Client", "the client (client, Client)"),
        ("path,client,character,label", "the label (label, character)"),
        ("path,path,client,label", "the picture (path, path)"),
    ],
)
def test_several_columns_that_can_be_the_same_are_refused(header, said, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f"{header}\n0.png,a,0,b\n")
    names = [path, f"several of its columns can be {said}: rename or remove all but one"]
    small_files.refusal(load, path, names=names)


def test_a_table_of_pictures_may_have_their_paths(tmp_path):
    images, labels, writer, _ = written_forms.examples()
    table = written_forms.table(images, labels, writer)
    pyarrow.parquet.write_table(table.append_column("path", [["0.png"] * 60]), tmp_path / "x.parquet")
    assert len(load(tmp_path / "x.parquet").labels) == 60


def _written_by(writers, path):
    """A Parquet file with some pictures of these writers."""
    image = written_forms.png(written_forms.examples()[0][0])
    table = pyarrow.table({"image": [image] * len(writers), "label": [1] * len(writers), "writer": writers})
    pyarrow.parquet.write_table(table, path)
    return path


def test_writers_whose_numbers_pandas_made_floats_are_those_of_the_integers(tmp_path):
    _written_by([1, 2], tmp_path / "train.parquet")
    _written_by([1.0, 2.0], tmp_path / "test.parquet")
    assert load(tmp_path).clients == ("1", "2")


@pytest.mark.parametrize(
    ("writers", "said"),
    [
        ([1e17, 1e17 + 1], ["client '1.000000e+17' is a rounded number", "text or integers"]),
        (["1.23457E+11"] * 2, ["client '1.23457E+11' is a rounded number"]),
        ([1.0, float("nan")], ["an example has no client"]),
        ([b"a", b"\xff"], [r"the client b'\xff' has a name that is not UTF-8"]),
    ],
)
def test_writers_that_are_rounded_missing_or_not_text_are_refused(writers, said, tmp_path):
    small_files.refusal(load, _written_by(writers, tmp_path / "x.parquet"), names=["x.parquet", *said])


def test_names_of_classes_that_can_be_indices_or_codes_are_refused(tmp_path):
    path = written_forms.write("pictures", tmp_path)
    shutil.rmtree(path / "w1")
    shutil.rmtree(path / "w2")
    for number, folder in enumerate(sorted((path / "w0").iterdir())[:4]):
        folder.rename(path / f"{30 + number}")
    shutil.rmtree(path / "w0")
    small_files.refusal(load, path, names=[path, "the classes 30, 31, 32, 33 can be indices", "by their characters"])
    assert named_classes.classes_of("the ten digits", {f"3{digit}" for digit in range(10)})["37"] == 7
