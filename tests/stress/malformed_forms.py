"""Malformed client data in the forms that other projects write: LEAF, HDF5, Parquet, pictures, CSV, MATLAB, IDX."""

import json
import pathlib
from collections.abc import Callable

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image
from scipy.io import savemat

from tests.stress import cases
from tests.tasks.sources import written_forms


def _path(make: Callable[[pathlib.Path], object], path: str, flags: tuple[str, ...] = cases.IMAGES) -> cases.Make:
    """What `make` writes into a directory, as client data at `path` there."""

    def arguments(place: pathlib.Path) -> list[str]:
        make(place)
        return [*flags, *([cases.CACHED] if flags is cases.IMAGES else []), f"--client_data={path}"]

    return arguments


def _leaf(change: Callable[[dict], object], flags: tuple[str, ...] = cases.IMAGES) -> cases.Make:
    """A LEAF file after a change of what it holds."""

    def make(place: pathlib.Path) -> None:
        images, labels, writer, _ = written_forms.examples()
        path = written_forms.leaf(place / "x.json", images, labels, writer)
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return _path(make, "x.json", flags)


def _pixels(value: object) -> Callable[[dict], object]:
    return lambda data: data["user_data"]["w0"]["x"][0].__setitem__(3, value)


def _cut(form: str, name: str, share: float = 0.5, path: str = "") -> cases.Make:
    """A form of which one file is cut short."""

    def make(place: pathlib.Path) -> None:
        written_forms.write(form, place)
        file = next(place.rglob(name))
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])

    return _path(make, path or name)


LEAF: dict[str, cases.Make] = {
    **{f"a pixel of {value!r}": _leaf(_pixels(value)) for value in (2.0, -1.0, float("nan"), "a", None, [1], 1e999)},
    **{
        f"labels of {value!r}": _leaf(lambda data, value=value: data["user_data"]["w0"].update(y=[value] * 20))
        for value in (62, -1, 0.5, "a", None)
    },
    "images of 783 pixels": _leaf(lambda data: [image.pop() for image in data["user_data"]["w0"]["x"]]),
    "one image of 783 pixels": _leaf(lambda data: data["user_data"]["w0"]["x"][0].pop()),
    "labels too few": _leaf(lambda data: data["user_data"]["w0"]["y"].pop()),
    "no user_data": _leaf(lambda data: data.pop("user_data")),
    "user_data of lists": _leaf(lambda data: data.update(user_data=[1, 2])),
    "a user without data": _leaf(lambda data: data["users"].append("w9")),
    "data without a user": _leaf(lambda data: data["users"].pop()),
    "another number of samples": _leaf(lambda data: data.update(num_samples=[1, 2, 3])),
    "no client": _leaf(lambda data: data.update(users=[], num_samples=[], user_data={})),
    "clients without x": _leaf(lambda data: data["user_data"]["w0"].pop("x")),
    "text as images": _leaf(lambda data: data["user_data"]["w0"].update(x=["a" * 80] * 20)),
    "cut short": _cut("leaf, one file", "all_data_0.json"),
    "cut at its end": _cut("leaf, one file", "all_data_0.json", 0.9999),
    "empty": _path(lambda place: (place / "x.json").write_bytes(b""), "x.json"),
    "of bytes": _path(lambda place: (place / "x.json").write_bytes(bytes(range(256))), "x.json"),
    "a list": _path(lambda place: (place / "x.json").write_text("[1, 2]"), "x.json"),
    "brackets in brackets": _path(lambda place: (place / "x.json").write_text('{"users": ' + "[" * 100_000), "x.json"),
    "images as text for Shakespeare": _leaf(lambda data: None, cases.TEXT),
}


def _hdf5(change: Callable[[h5py.File], object]) -> cases.Make:
    """An HDF5 file of TFF's form after a change."""

    def make(place: pathlib.Path) -> None:
        images, labels, writer, _ = written_forms.examples()
        written_forms.hdf5(place / "x.h5", images, labels, writer)
        with h5py.File(place / "x.h5", "r+") as file:
            change(file)

    return _path(make, "x.h5")


def _damaged_group(place: pathlib.Path) -> None:
    """A file whose clients are found, the last one's arrays are not."""
    images, labels, writer, _ = written_forms.examples()
    path = written_forms.hdf5(place / "x.h5", images, labels, writer)
    before, mark, after = path.read_bytes().rpartition(b"SNOD")
    path.write_bytes(before + mark[::-1] + after)


def _damaged_type(place: pathlib.Path) -> None:
    """A file whose labels say that they are strings, in an encoding that does not exist."""
    images, labels, writer, _ = written_forms.examples()
    path = written_forms.hdf5(place / "x.h5", images, labels, writer)
    integer, string = (bytes([kind, *more, 0, 0, 4, 0, 0, 0]) for kind, *more in ((0x10, 8), (0x13, 0x20)))
    content = path.read_bytes()
    path.write_bytes(content.replace(integer, string))


def _replace(name: str, values: object) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        del file[f"examples/w0/{name}"]
        file[f"examples/w0/{name}"] = values

    return change


HDF5: dict[str, cases.Make] = {
    "no group of examples": _hdf5(lambda file: file.pop("examples")),
    "a client that is an array": _hdf5(lambda file: file.__setitem__("examples/w9", [1, 2])),
    "no label": _hdf5(lambda file: file.pop("examples/w0/label")),
    "labels too few": _hdf5(_replace("label", np.zeros(3, int))),
    "labels of 62": _hdf5(_replace("label", np.full(20, 62))),
    "labels as text": _hdf5(_replace("label", ["a"] * 20)),
    "pixels of 27 rows": _hdf5(_replace("pixels", np.zeros((20, 27, 28)))),
    "pixels of 2": _hdf5(_replace("pixels", np.full((20, 28, 28), 2.0))),
    "pixels of NaN": _hdf5(_replace("pixels", np.full((20, 28, 28), np.nan))),
    "pixels as text": _hdf5(_replace("pixels", ["a"] * 20)),
    "one pixel": _hdf5(_replace("pixels", 1.0)),
    "a client's name that is not text": _hdf5(lambda file: file.move("examples/w0", b"examples/w0\xff")),
    "labels of a damaged type": _path(_damaged_type, "x.h5"),
    "a damaged group": _path(_damaged_group, "x.h5"),
    "cut short": _cut("hdf5", "fed_emnist_train.h5"),
    "only its first bytes": _path(lambda place: (place / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n"), "x.h5"),
    "empty": _path(lambda place: (place / "x.h5").write_bytes(b""), "x.h5"),
}


def _table(change: Callable[[dict], object]) -> cases.Make:
    """A Parquet file after a change of its columns."""

    def make(place: pathlib.Path) -> None:
        images, labels, writer, _ = written_forms.examples()
        columns = written_forms.table(images, labels, writer).to_pydict()
        change(columns)
        pyarrow.parquet.write_table(pyarrow.table(columns), place / "x.parquet")

    return _path(make, "x.parquet")


PARQUET: dict[str, cases.Make] = {
    **{f"no {name}": _table(lambda table, name=name: table.pop(name)) for name in ("image", "writer_id", "character")},
    "columns with line breaks": _table(lambda table: table.update({"x\ny\x1b[31m": table.pop("character")})),
    "a picture that is none": _table(lambda table: table["image"][3].update(bytes=b"a picture")),
    "a picture cut short": _table(lambda table: table["image"][3].update(bytes=table["image"][3]["bytes"][:60])),
    "a picture without bytes": _table(lambda table: table["image"][3].update(bytes=None)),
    "an image missing": _table(lambda table: table["image"].__setitem__(3, None)),
    "a writer missing": _table(lambda table: table["writer_id"].__setitem__(3, None)),
    "a label of 62": _table(lambda table: table["character"].__setitem__(3, 62)),
    "labels as words": _table(lambda table: table.update(character=["seven"] * 60)),
    "images as numbers": _table(lambda table: table.update(image=list(range(60)))),
    "images of 3 pixels": _table(lambda table: table.update(image=[[1, 2, 3]] * 60)),
    "no rows": _table(lambda table: [column.clear() for column in table.values()]),
    "cut short": _cut("parquet", "train-00000-of-00002.parquet"),
    "an Arrow file cut short": _cut("feather", "x.feather"),
    "a stream cut short": _cut("saved to disk", "data-00000-of-00001.arrow", 0.5, "."),
    "only its first bytes": _path(lambda place: (place / "x.parquet").write_bytes(b"PAR1"), "x.parquet"),
    "empty": _path(lambda place: (place / "x.parquet").write_bytes(b""), "x.parquet"),
}


def _pictures(change: Callable[[pathlib.Path], object], path: str = "hands") -> cases.Make:
    def make(place: pathlib.Path) -> None:
        written_forms.write("csv", place)
        change(place / "hands")

    return _path(make, path)


def _table_of_paths(change: Callable[[str], str]) -> cases.Make:
    def make(place: pathlib.Path) -> None:
        path = written_forms.write("csv", place)
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    return _path(make, "hands.csv")


def _first(folder: pathlib.Path) -> pathlib.Path:
    return min(folder.rglob("*.png"))


PICTURES: dict[str, cases.Make] = {
    "a picture that is text": _pictures(lambda folder: _first(folder).write_text("a picture")),
    "an empty picture": _pictures(lambda folder: _first(folder).write_bytes(b"")),
    "a picture cut short": _pictures(lambda folder: _first(folder).write_bytes(_first(folder).read_bytes()[:60])),
    "a picture of NaN": _pictures(
        lambda folder: Image.fromarray(np.full((28, 28), np.nan, np.float32)).save(_first(folder), "TIFF")
    ),
    "a picture beside the clients": _pictures(lambda folder: _first(folder).rename(folder / "0.png")),
    "a picture beside the classes": _pictures(lambda folder: _first(folder).rename(folder / "w0" / "0.png")),
    "a class of no character": _pictures(lambda folder: _first(folder).parent.rename(folder / "w0" / "seven")),
    "an empty folder": _path(lambda place: (place / "hands").mkdir(), "hands"),
    "a folder of text": _path(lambda place: (place / "x.txt").write_text("text"), "."),
}
CSV: dict[str, cases.Make] = {
    "no names of columns": _table_of_paths(lambda text: text.partition("\n")[2]),
    "no labels": _table_of_paths(lambda text: text.replace("Label", "Letters")),
    "no clients": _table_of_paths(lambda text: text.replace("Client", "Who")),
    "no rows": _table_of_paths(lambda text: text.partition("\n")[0]),
    "a cell missing": _table_of_paths(lambda text: text + "hands/w0/1/0.png;w0\r\n"),
    "an empty cell": _table_of_paths(lambda text: text + "hands/w0/1/0.png;;1\r\n"),
    "a picture that is not there": _table_of_paths(lambda text: text + "hands/nobody.png;w0;1\r\n"),
    "a quote that does not end": _table_of_paths(lambda text: text + '"hands;w0;1\r\n'),
    "numbers": _path(lambda place: (place / "x.csv").write_text("1,2,3\n4,5,6\n"), "x.csv"),
    "empty": _path(lambda place: (place / "x.csv").write_text(""), "x.csv"),
}


def _mat(change: Callable[[dict], object]) -> cases.Make:
    def make(place: pathlib.Path) -> None:
        images, labels, writer, is_test = written_forms.examples()

        def part(chosen: np.ndarray) -> dict:
            writers = np.array([written_forms.WRITERS.index(name) for name in writer[chosen]])
            return {"images": images[chosen].reshape(-1, 784), "labels": labels[chosen], "writers": writers}

        dataset = {
            "train": part(~is_test),
            "test": part(is_test),
            "mapping": np.array([[i, 48 + i] for i in range(10)]),
        }
        change(dataset)
        savemat(place / "x.mat", {"dataset": dataset})

    return _path(make, "x.mat")


def _idx(change: Callable[[pathlib.Path], object], path: str = "idx") -> cases.Make:
    def make(place: pathlib.Path) -> None:
        written_forms.write("idx", place)
        change(place / "idx")

    return _path(make, path)


_IMAGES_OF_IDX, _LABELS_OF_IDX = "emnist-byclass-test-images-idx3-ubyte.gz", "emnist-byclass-test-labels-idx1-ubyte"
EMNIST: dict[str, cases.Make] = {
    "labels beyond the mapping": _mat(lambda dataset: None),
    "no labels": _mat(lambda dataset: dataset["train"].pop("labels")),
    "no test part": _mat(lambda dataset: dataset.pop("test")),
    "labels too few": _mat(lambda dataset: dataset["train"].update(labels=np.arange(3))),
    "images of 783 pixels": _mat(lambda dataset: dataset["train"].update(images=np.zeros((48, 783), np.uint8))),
    "a mapping to no character": _mat(lambda dataset: dataset.update(mapping=np.array([[0, 32]]))),
    "another variable": _path(lambda place: savemat(place / "x.mat", {"x": np.arange(3)}), "x.mat"),
    "cut short": _cut("mat", "emnist-byclass.mat"),
    "only its first bytes": _path(lambda place: (place / "x.mat").write_bytes(b"MATLAB 5.0 MAT-file"), "x.mat"),
    "IDX without labels": _idx(lambda folder: (folder / _LABELS_OF_IDX).unlink()),
    "IDX cut short": _idx(
        lambda folder: (folder / _LABELS_OF_IDX).write_bytes((folder / _LABELS_OF_IDX).read_bytes()[:9])
    ),
    "IDX of bytes": _idx(lambda folder: (folder / _LABELS_OF_IDX).write_bytes(b"\0\0\x08\x01\xff\xff\xff\xff")),
    "compressed IDX cut short": _idx(
        lambda folder: (folder / _IMAGES_OF_IDX).write_bytes((folder / _IMAGES_OF_IDX).read_bytes()[:99])
    ),
    "IDX of two data sets": _idx(
        lambda folder: (folder / "emnist-letters-train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    ),
}
KINDS = {
    "LEAF's JSON": LEAF,
    "HDF5 file": HDF5,
    "Parquet or Arrow": PARQUET,
    "folder of pictures": PICTURES,
    "CSV of pictures": CSV,
    "EMNIST's files": EMNIST,
}
