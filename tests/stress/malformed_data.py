"""Malformed client data, by hand: archives and databases."""

import io
import pathlib
import sqlite3
import zipfile
from collections.abc import Callable

import numpy as np

from tests.stress import cases
from tests.tasks.sources import small_files


class _Executed:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(cases.CANARY),)


def _archive(change: Callable[[dict], object]) -> cases.Make:
    """A by-writer archive after a change of its arrays."""

    def make(place: pathlib.Path) -> list[str]:
        arrays: dict = small_files.arrays()
        change(arrays)
        np.savez_compressed(place / "x.npz", **arrays)
        return [*cases.IMAGES, "--client_data=x.npz"]

    return make


def _file(name: str, content: bytes, flags: tuple[str, ...] = cases.IMAGES) -> cases.Make:
    """A file of client data with some content."""

    def make(place: pathlib.Path) -> list[str]:
        (place / name).write_bytes(content)
        return [*flags, f"--client_data={name}"]

    return make


def _bomb(place: pathlib.Path) -> list[str]:
    header = io.BytesIO()
    shape = (2**40 // 784, 28, 28)  # 1 TiB
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(place / "x.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    return [*cases.IMAGES, "--client_data=x.npz"]


def _million_writers(arrays: dict) -> None:
    count = 1_000_000
    arrays.update(images=np.zeros((count, 28, 28), np.uint8), labels=np.arange(count) % 62, writer=np.arange(count))


def _pickled_file(place: pathlib.Path) -> list[str]:
    np.save(place / "x.npy", np.array([_Executed()], object), allow_pickle=True)
    (place / "x.npy").rename(place / "x.npz")
    return [*cases.IMAGES, "--client_data=x.npz"]


def _floats(value: float) -> Callable[[dict], object]:
    return lambda arrays: arrays.update(images=np.full((12, 28, 28), value))


ARCHIVES: dict[str, cases.Make] = {
    **{f"no {name}": _archive(lambda arrays, name=name: arrays.pop(name)) for name in ("images", "labels", "writer")},
    **{f"pixels of {value}": _archive(_floats(value)) for value in (np.nan, np.inf, -0.5, 1.5)},
    **{
        f"labels of {value}": _archive(lambda arrays, value=value: arrays.update(labels=np.full(12, value)))
        for value in (-1, 62, 2**62, 0.5, "a")
    },
    "images as text": _archive(lambda arrays: arrays.update(images=np.full((12, 28, 28), "a"))),
    "images of 27 rows": _archive(lambda arrays: arrays.update(images=arrays["images"][:, :27])),
    "labels too few": _archive(lambda arrays: arrays.update(labels=arrays["labels"][:5])),
    "no example": _archive(lambda arrays: arrays.update({name: array[:0] for name, array in arrays.items()})),
    "one writer": _archive(lambda arrays: arrays.update(writer=np.full(12, "w"))),
    "only test examples": _archive(lambda arrays: arrays.update(split=np.full(12, "test"))),
    "no client with a test part": _archive(lambda arrays: arrays.update(split=np.full(12, "train"))),
    "split of another word": _archive(lambda arrays: arrays.update(split=np.full(12, "validate"))),
    "ink of another word": _archive(lambda arrays: arrays.update(ink="blue")),
    "a class twice": _archive(lambda arrays: arrays.update(classes=np.array(["a", "a"]))),
    "objects that execute": _archive(lambda arrays: arrays.update(labels=np.array([_Executed()] * 12, object))),
    "writers that execute": _archive(lambda arrays: arrays.update(writer=np.array([_Executed()] * 12, object))),
    "a pickle under its name": _pickled_file,
    "declares 1 TiB": _bomb,
    "text": _file("x.npz", b"images,labels,writer\n"),
    "empty": _file("x.npz", b""),
    "of another kind": _file("x.csv", b"images,labels,writer\n"),
    "missing": lambda place: [*cases.IMAGES, "--client_data=x.npz"],
    "a directory": lambda place: [*cases.IMAGES, f"--client_data={place}"],
}


def database(change: str, flags: tuple[str, ...] = cases.IMAGES) -> cases.Make:
    """A database after some statements."""

    def make(place: pathlib.Path) -> list[str]:
        path = place / "x.sqlite"
        rows = small_files.sqlite_rows(clients=("f0", "f1", "f2"))
        if flags is cases.TEXT:
            rows = [(split, client, small_files.serialize_snippet("To be, or not")) for split, client, *_ in rows]
        small_files.write_sqlite(path, rows)
        with sqlite3.connect(path) as connection:
            connection.executescript(change)
        connection.close()
        return [*flags, *_cached(flags), "--client_data=x.sqlite"]

    return make


def _cached(flags: tuple[str, ...]) -> list[str]:
    return [cases.CACHED] if flags is cases.IMAGES else []


_DROP = "DELETE FROM examples WHERE {0}; DELETE FROM client_metadata WHERE {0}"
_STATEMENTS = {
    "no tables": "DROP TABLE examples; DROP TABLE client_metadata",
    "no table of examples": "DROP TABLE examples",
    "no table of clients": "DROP TABLE client_metadata",
    "a column of another name": "ALTER TABLE examples RENAME COLUMN client_id TO client",
    "no clients": "DELETE FROM examples; DELETE FROM client_metadata",
    "no examples": "DELETE FROM examples",
    "no train part": _DROP.format("split_name = 'all_train'"),
    "no test part": _DROP.format("split_name = 'all_test'"),
    "a client without a test part": _DROP.format("split_name = 'all_test' AND client_id = 'f1'"),
    "more examples than counted": "INSERT INTO examples SELECT * FROM examples",
    "fewer examples than counted": "DELETE FROM examples WHERE rowid = 3",
    "negative counts": "UPDATE client_metadata SET num_examples = -1",
    "2^62 examples": "UPDATE client_metadata SET num_examples = 4611686018427387904",
    "counts as text": "UPDATE client_metadata SET num_examples = 'three'",
    "examples as text": "UPDATE examples SET serialized_example_proto = 'three'",
    "examples of nothing": "UPDATE examples SET serialized_example_proto = NULL",
    "empty examples": "UPDATE examples SET serialized_example_proto = x''",
    "other splits": "UPDATE client_metadata SET split_name = 'a'; UPDATE examples SET split_name = 'a'",
    "a view that is not there": "ALTER TABLE examples RENAME TO e; CREATE VIEW examples AS SELECT * FROM missing",
}
DATABASES: dict[str, cases.Make] = {
    **{name: database(statements) for name, statements in _STATEMENTS.items()},
    "a text": _file("x.sqlite", b"CREATE TABLE examples"),
    "only its first bytes": _file("x.sqlite", b"SQLite format 3\0"),
    "empty": _file("x.sqlite", b""),
    "of the other task": lambda place: [*cases.TEXT, database("")(place)[-1]],
}
TEXTS: dict[str, cases.Make] = {
    **{name: database(statements, cases.TEXT) for name, statements in list(_STATEMENTS.items())[2::3]},
    "of the other task": lambda place: [*cases.IMAGES, cases.CACHED, database("", cases.TEXT)(place)[-1]],
    "empty snippets": database(
        f"UPDATE examples SET serialized_example_proto = x'{small_files.serialize_snippet('').hex()}'", cases.TEXT
    ),
}


def _millions(path: pathlib.Path, blob: bytes, examples: int) -> None:
    """A database of a million clients with equally many examples each (in either part), and of three that have some."""
    rows = [(split, client, blob) for split in ("all_train", "all_test") for client in ("f0", "f1", "f2")]
    small_files.write_sqlite(path, rows)
    clients = [f"client {number}" for number in range(1_000_000)]
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "INSERT INTO client_metadata VALUES (?, 'all_train', ?)", ((client, examples) for client in clients)
        )
        for _ in range(examples):
            connection.executemany(
                "INSERT INTO examples VALUES ('all_train', ?, ?)", ((client, blob) for client in clients)
            )
    connection.close()


def _million_clients(blob: bytes, examples: int, flags: tuple[str, ...]) -> cases.Make:
    def make(place: pathlib.Path) -> list[str]:
        _millions(place / "x.sqlite", blob, examples)
        return [*flags, *_cached(flags), "--client_data=x.sqlite"]

    return make


_IMAGE = small_files.serialize(np.ones((28, 28)), 3)
_SNIPPET = small_files.serialize_snippet("Ay.")
MILLIONS: dict[str, cases.Make] = {
    "archive of a million writers": _archive(_million_writers),
    "database of a million clients, one image each": _million_clients(_IMAGE, 1, cases.IMAGES),
    "database of a million clients without examples": _million_clients(_IMAGE, 0, cases.IMAGES),
    "database of a million roles, one word each": _million_clients(_SNIPPET, 1, cases.TEXT),
}
