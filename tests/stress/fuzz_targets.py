"""The readers of foreign bytes that `fuzz` searches, with valid input for each."""

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import pathlib
import sqlite3
import zipfile
from collections.abc import Callable
from unittest import mock

import numpy as np
import pandas as pd

_FEW = 2  # examples in a seed
_BETWEEN = b"\xff|\xff"  # arrays of an archive


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader of bytes.

    Attributes:
        seeds: sound input, in files that are written into a folder.
        reader: from that folder to what reads bytes; it raises UserError for those that it refuses.
    """

    seeds: Callable[[pathlib.Path], list[bytes]]
    reader: Callable[[pathlib.Path], Callable[[bytes], object]]


def _data(name: str, text: bool = False) -> Callable[[pathlib.Path], Callable[[bytes], object]]:
    """Client data in a file of a name, read as the program reads it."""

    def reader(place: pathlib.Path) -> Callable[[bytes], object]:
        from tests.tasks.sources import small_files
        from tff_personalization.tasks import archive_cache, archives, registry, sources

        catalogue = registry.TASKS["shakespeare" if text else "emnist62"].sources
        options = small_files.options(place / name, cache_dir=place / "cache")

        def without_a_cache(entry, make):
            return make(lambda count: np.empty((count, *archives.IMAGE_SHAPE), np.uint8))

        def read(content: bytes) -> object:
            (place / name).write_bytes(content)
            with mock.patch.object(archive_cache, "load_or_make", without_a_cache):
                return sources.load(options, catalogue)

        return read

    return reader


def _npz(place: pathlib.Path) -> list[bytes]:
    from tests.tasks.sources import small_files

    arrays = small_files.arrays(count=3)
    found = []
    for save in (np.savez, np.savez_compressed):
        content = io.BytesIO()
        save(content, **arrays)
        found.append(content.getvalue())
    members = []
    for array in arrays.values():
        member = io.BytesIO()
        np.save(member, array)
        members.append(member.getvalue())
    return [*found, _BETWEEN.join([b"", *members])]


def _archive(place: pathlib.Path) -> Callable[[bytes], object]:
    """An archive; or, of bytes that begin with `_BETWEEN`, one of these arrays, whose checksums are right."""
    read = _data("x.npz")(place)

    def read_either(content: bytes) -> object:
        if content.startswith(_BETWEEN):
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w") as opened:
                for name, member in zip(
                    ("images", "labels", "writer", "split"), content.split(_BETWEEN)[1:], strict=False
                ):
                    opened.writestr(f"{name}.npy", member)
            content = archive.getvalue()
        return read(content)

    return read_either


def _sqlite(place: pathlib.Path) -> list[bytes]:
    from tests.tasks.sources import small_files

    path = small_files.write_sqlite(place / "seed.sqlite", small_files.sqlite_rows(clients=("f0",), per_part=1))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA page_size = 512; VACUUM")
    return [path.read_bytes()]


def _form(name: str) -> Callable[[pathlib.Path], list[bytes]]:
    def seeds(place: pathlib.Path) -> list[bytes]:
        from tests.tasks.sources import written_forms

        write, path = getattr(written_forms, name), place / "seed"
        few = (array[:_FEW] for array in written_forms.examples()[:3])
        if name == "table":
            import pyarrow.parquet

            pyarrow.parquet.write_table(write(*few), path)
        else:
            write(path, *few)
        return [path.read_bytes()]

    return seeds


def _csv(place: pathlib.Path) -> list[bytes]:
    return [b"Path;Client;Label\r\nx/a.png;w1;A\r\nx/b.png;w2;b\r\n"]


def _record(name: str) -> Callable[[pathlib.Path], Callable[[bytes], object]]:
    """A record of a run, as the analysis reads it."""

    def reader(place: pathlib.Path) -> Callable[[bytes], object]:
        import shutil

        from tests import processes
        from tff_personalization.records import run_records

        run = shutil.copytree(processes.ROOT / "docs" / "results" / "quick", place / "run", dirs_exist_ok=True)
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps({**summary, "test_clients": 1}))  # as in the seed of clients.csv

        def read(content: bytes) -> object:
            (run / name).write_bytes(content)
            opened = run_records.read(run)
            return opened.summary if name.endswith(".json") else getattr(opened, name.removesuffix(".csv"))

        return read

    return reader


def _of_quick(name: str) -> Callable[[pathlib.Path], list[bytes]]:
    def seeds(place: pathlib.Path) -> list[bytes]:
        from tests import processes

        content = (processes.ROOT / "docs" / "results" / "quick" / name).read_bytes()
        return [b"\n".join(content.split(b"\n")[:3]) + b"\n" if name.endswith("csv") else content]

    return seeds


def _flag_file(place: pathlib.Path) -> Callable[[bytes], object]:
    from absl import flags

    from tff_personalization import errors
    from tff_personalization.experiment import config
    from tff_personalization.experiment import settings as settings_lib

    functions = (settings_lib.all_parts, settings_lib.all_flags, settings_lib.choices, settings_lib.roles)
    cached = {function.__name__: functools.cache(function) for function in functions}
    values = flags.FlagValues()
    config.define_flags(values)
    flags.DEFINE_string("flagfile", "", "", flag_values=values)

    def no_suggestions(*_: object) -> list[str]:
        return []

    def read(content: bytes) -> object:
        (place / "x.flags").write_bytes(content)
        values.unparse_flags()
        for name in values:
            if not values[name].using_default_value:
                values[name].unparse()
        try:
            # No plugin adds settings in between; the program does not print absl's suggestions, which take seconds.
            with (
                mock.patch.multiple(settings_lib, **cached),
                mock.patch("absl.flags._helpers.get_flag_suggestions", no_suggestions),
            ):
                values(["x", f"--flagfile={place / 'x.flags'}"])
                return config.from_flags(values)
        # One line: `startup.parse_flags`.
        except (flags.Error, UnicodeDecodeError, RecursionError) as error:
            raise errors.UserError(str(error)) from error

    return read


def _sweep_file(place: pathlib.Path) -> Callable[[bytes], object]:
    from tff_personalization.sweeps import sweep_file

    def read(content: bytes) -> object:
        (place / "x.toml").write_bytes(content)
        found = sweep_file.read(place / "x.toml")
        scales = found.contents.get("scale", {})
        return list(itertools.islice(found.points(next(iter(scales), "")), 100))

    return read


def _page(place: pathlib.Path) -> Callable[[bytes], object]:
    """A request to the drawing page: its first byte chooses the path, the rest is the body."""
    from tests.draw import conftest
    from tff_personalization import errors
    from tff_personalization.draw import personalizer, server

    maker = personalizer.Personalizer(conftest.trained_model("--model=linear", "--personalization_epochs=1"))
    writers = pd.DataFrame({"more_right": np.arange(10), "predictions": 10})
    pages = server.Pages(maker, writers, {"name": "run"}, most_visitors=2, most_examples=12)
    app = server.create_app(pages, {conftest.HOST})
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.test_client_class = conftest._Client
    client = app.test_client()
    client.get("/")
    paths = ("/api/look", "/api/examples", "/api/undo", "/api/forget", "/api/archive")

    def read(content: bytes) -> object:
        path = paths[content[0] % len(paths) if content else 0]
        kind = "application/octet-stream" if path.endswith("archive") else "application/json"
        answer = client.post(path, data=content[1:], content_type=kind)
        if answer.status_code >= 500:
            raise AssertionError(answer.status)
        if answer.status_code >= 400:
            raise errors.UserError(answer.status)
        return answer.json

    return read


def _requests(place: pathlib.Path) -> list[bytes]:
    strokes = json.dumps({"strokes": [[[1, 2], [3, 4], [9, 9]]], "label": "3"}).encode()
    return [bytes([number]) + strokes for number in range(4)] + [b"\x04" + content for content in _npz(place)]


TARGETS = {
    "npz": Target(_npz, _archive),
    "SQLite": Target(_sqlite, _data("x.sqlite")),
    "LEAF": Target(_form("leaf"), _data("x.json")),
    "HDF5": Target(_form("hdf5"), _data("x.h5")),
    "Parquet": Target(_form("table"), _data("x.parquet")),
    "CSV of pictures": Target(_csv, _data("x.csv")),
    "config.json": Target(_of_quick("config.json"), _record("config.json")),
    "summary.json": Target(_of_quick("summary.json"), _record("summary.json")),
    "clients.csv": Target(_of_quick("clients.csv"), _record("clients.csv")),
    "evaluations.csv": Target(_of_quick("evaluations.csv"), _record("evaluations.csv")),
    "flag file": Target(lambda _: [b"--method=reptile\n--rounds=3\n# x\n--strategies=fine_tune,apfl\n"], _flag_file),
    "sweep file": Target(
        lambda _: [b'[about]\ntitle = "x"\n[grid]\nseed = [1, 2]\n[[runs]]\nlabel = "a"\nrounds = 3\n'], _sweep_file
    ),
    "page": Target(_requests, _page),
}
