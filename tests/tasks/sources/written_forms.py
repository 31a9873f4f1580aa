"""One small data set, written in every form of client data."""

import gzip
import io
import json
import struct

import h5py
import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.parquet
from PIL import Image
from scipy.io import savemat

from tff_personalization.tasks import archives
from tff_personalization.tasks.sources import handwriting

WRITERS = ("w0", "w1", "w2")
PER_WRITER = 20


def examples():
    """60 generated characters: images with ink 255 on 0, labels, three writers, whether it is a test example."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 62, (len(WRITERS), PER_WRITER))
    images = np.concatenate([handwriting.draw(0, writer, labels[writer], 1.0) for writer in range(len(WRITERS))])
    is_test = np.arange(images.shape[0]) % 5 == 0
    return images, labels.ravel(), np.repeat(WRITERS, PER_WRITER), is_test


def leaf(path, images, labels, writer, **changes):
    """A file of LEAF's JSON; `changes` replace what it holds."""
    data = {"users": [], "num_samples": [], "user_data": {}}
    for name in sorted(set(writer.tolist())):
        mine = writer == name
        pixels = (1 - images[mine].reshape(-1, 784) / 255).tolist()
        data["users"].append(name)
        data["num_samples"].append(int(mine.sum()))
        data["user_data"][name] = {"x": pixels, "y": labels[mine].tolist()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**data, **changes}))
    return path


def hdf5(path, images, labels, writer):
    """A file of TFF's HDF5."""
    with h5py.File(path, "w") as file:
        for name in sorted(set(writer.tolist())):
            mine = writer == name
            file[f"examples/{name}/pixels"] = (1 - images[mine] / 255).astype(np.float32)
            file[f"examples/{name}/label"] = labels[mine].astype(np.int32)
    return path


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def table(images, labels, writer):
    """A table in the form of `flwrlabs/femnist`."""
    features = {"character": {"names": list(archives.CLASSES), "_type": "ClassLabel"}}
    columns = {
        "image": [{"bytes": png(255 - image), "path": f"{i}.png"} for i, image in enumerate(images)],
        "writer_id": writer.tolist(),
        "hsf_id": [0] * len(labels),
        "character": labels.tolist(),
    }
    return pyarrow.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def pictures(root, images, labels, writer):
    """A folder client/class/*.png."""
    for i, (image, label, name) in enumerate(zip(images, labels, writer, strict=True)):
        folder = root / name / archives.CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(png(image))
    return root


BY_CLASS = np.array([[index, ord(character)] for index, character in enumerate(archives.CLASSES)])


def mat(path, images, labels, writer, is_test, mapping=BY_CLASS):
    """EMNIST's by-class MATLAB file; without a mapping if it is None."""

    def part(chosen):
        return {
            "images": images[chosen].transpose(0, 2, 1).reshape(-1, 784),
            "labels": labels[chosen][:, None],
            "writers": np.array([WRITERS.index(name) for name in writer[chosen]])[:, None],
        }

    said = {} if mapping is None else {"mapping": mapping}
    savemat(path, {"dataset": {"train": part(~is_test), "test": part(is_test), **said}})
    return path


def idx(path, array, code=8):
    """An IDX file, compressed if its name says so."""
    content = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def idx_files(root, images, labels, writer, is_test):
    """EMNIST's by-class IDX files, with the writers beside them."""
    root.mkdir(parents=True, exist_ok=True)
    for part, chosen in (("train", ~is_test), ("test", is_test)):
        stem = f"emnist-byclass-{part}"
        idx(root / f"{stem}-images-idx3-ubyte.gz", images[chosen].transpose(0, 2, 1).copy())
        idx(root / f"{stem}-labels-idx1-ubyte", labels[chosen].astype(np.uint8))
        numbers = np.array([WRITERS.index(name) for name in writer[chosen]], ">i4")
        idx(root / f"{stem}-writers-idx1-int", numbers, code=0x0C)
    return root


def write(form, place):
    """Writes the examples in a form; the path for --client_data."""
    images, labels, writer, is_test = examples()
    parts = {"train": ~is_test, "test": is_test}
    every = (images, labels, writer)
    if form == "leaf":
        for part, chosen in parts.items():
            leaf(place / part / f"all_data_0_{part}_9.json", *(array[chosen] for array in every))
        return place
    if form == "leaf, one file":
        return leaf(place / "all_data_0.json", *every)
    if form == "leaf, by user":
        leaf(place / "train" / "a.json", *(array[writer != "w2"] for array in every))
        leaf(place / "test" / "a.json", *(array[writer == "w2"] for array in every))
        return place
    if form == "hdf5":
        hdf5(place / "fed_emnist_test.h5", *(array[is_test] for array in every))
        return hdf5(place / "fed_emnist_train.h5", *(array[~is_test] for array in every))
    if form == "parquet":
        for part, chosen in (("0", labels < 30), ("1", labels >= 30)):
            pyarrow.parquet.write_table(
                table(*(array[chosen] for array in every)), place / f"train-0000{part}-of-00002.parquet"
            )
        return place
    if form == "feather":
        pyarrow.feather.write_feather(table(*every), str(place / "x.feather"))
        return place / "x.feather"
    if form == "saved to disk":
        for part, chosen in parts.items():
            (place / part).mkdir()
            rows = table(*(array[chosen] for array in every))
            with pyarrow.OSFile(str(place / part / "data-00000-of-00001.arrow"), "wb") as file:
                pyarrow.ipc.new_stream(file, rows.schema).write_table(rows)
        (place / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        return place
    if form == "pictures":
        return pictures(place / "hands", *every)
    if form == "csv":
        pictures(place / "hands", *every)
        rows = "".join(
            f"hands/{name}/{archives.CLASSES[label]}/{i}.png;{name};{archives.CLASSES[label]}\r\n"
            for i, (label, name) in enumerate(zip(labels, writer, strict=True))
        )
        (place / "hands.csv").write_text(f"\ufeffPath;Client;Label\r\n{rows}", encoding="utf-8")
        return place / "hands.csv"
    if form == "mat":
        return mat(place / "emnist-byclass.mat", *every, is_test)
    return idx_files(place / "idx", *every, is_test)


SPLIT = {"leaf", "hdf5", "saved to disk", "mat", "idx"}
"""The forms that are written with a train and a test part for each client."""
FORMS = (
    *("leaf", "leaf, one file", "leaf, by user", "hdf5", "parquet", "feather", "saved to disk"),
    *("pictures", "csv", "mat", "idx"),
)
