"""Coverage-guided fuzzing of every reader of foreign bytes: every refusal must be a UserError.

    .venv/bin/pip install --no-deps --target=/tmp/atheris atheris==3.0.0      # once; nothing else needs it
    PYTHONPATH=/tmp/atheris python -m tests.stress.fuzz npz --runs=1000000 --findings=DIR
    PYTHONPATH=/tmp/atheris python -m tests.stress.fuzz --all --runs=1000000 --output=docs/reliability/fuzz.csv

Atheris makes bytes for a reader of `TARGETS`, guided by the project's branches that they reach. It begins with valid
input. Any other exception than a UserError (or one that the program turns into one line) is written to DIR and ends the
search. With --all every reader has its turn, in its own process, and a row: executions, found or not. A search with
--corpus keeps its interesting inputs there, and the next one starts from them.

For speed, inputs are short, files are in memory (/dev/shm), and nothing is put into the cache of client data.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import itertools
import json
import pathlib
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from unittest import mock

import numpy as np
import pandas as pd

_MODULE = "tests.stress.fuzz"
_MOST_BYTES = 20_000
_FEW = 2  # examples in a seed
_ROOMS = ("tasks", "records", "sweeps", "draw", "experiment", "settings", "optimizers", "schedules", "plugins")
_GUIDING = [*(f"tff_personalization.{room}" for room in _ROOMS), "tomllib"]
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
    from tff_personalization.draw import held_out_writers, personalizer, server

    maker = personalizer.Personalizer(conftest.trained_model("--model=linear", "--personalization_epochs=1"))
    writers = held_out_writers.HeldOutWriters(np.arange(10), np.full(10, 10))
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


def search(name: str, runs: int, seconds: int, findings: pathlib.Path, corpus: pathlib.Path | None = None) -> None:
    """Fuzzes one reader; the process ends with it."""
    import atheris
    from absl import logging

    logging.set_verbosity(logging.FATAL)
    place = pathlib.Path(
        tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None)
    )
    tempfile.tempdir = str(place)
    (place / "seeds").mkdir()
    # Modules that are imported here guide the search by their branches; some are imported when a reader is called.
    with atheris.instrument_imports(include=_GUIDING):
        from tff_personalization import errors

        read, seeds = TARGETS[name].reader(place), TARGETS[name].seeds(place / "seeds")
        for content in seeds:
            with contextlib.suppress(errors.UserError):
                read(content)
    prefix = re.sub(r"\W+", "_", name)
    kept = (corpus or place / "corpus") / prefix
    kept.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds):
        (kept / f"seed-{number}").write_bytes(content)

    def once(content: bytes) -> None:
        try:
            read(content)
        except errors.UserError as error:
            if "\n" in str(error):
                raise AssertionError("a message of several lines") from error

    findings.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}"] if seconds else []
    bounds = [f"-runs={runs}", f"-max_len={_MOST_BYTES}", "-timeout=300", "-rss_limit_mb=4000", "-print_final_stats=1"]
    artifacts = f"-artifact_prefix={findings}/{prefix}-"
    atheris.Setup(["fuzz", str(kept), *bounds, artifacts, *limits], once)
    atheris.Fuzz()


def executions(said: str) -> int:
    """How often a reader was called, by what libFuzzer says at its end or, where it was stopped, last."""
    final = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said)
    return int(final[-1]) if final else max((int(number) for number in re.findall(r"^#(\d+)\s", said, re.M)), default=0)


def search_all(names: Iterable[str], flags: Iterable[str]) -> Iterator[dict]:
    """Fuzzes readers one after the other, each in a process of its own with flags of this module; a row for each."""
    for name in names:
        started = time.monotonic()
        command = [sys.executable, "-m", _MODULE, name, *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
        if done.returncode:
            print(done.stderr[-3000:], file=sys.stderr)
        yield {
            "reader": name,
            "executions": executions(done.stderr),
            "findings": int(done.returncode != 0),
            "seconds": round(time.monotonic() - started),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", nargs="*", choices=[*TARGETS, []], help="one of them")
    parser.add_argument("--all", action="store_true", help="one after the other, or those that are named")
    parser.add_argument("--runs", type=int, default=-1, help="executions; -1: no limit")
    parser.add_argument("--seconds", type=int, default=0, help="of each search; 0: no limit")
    parser.add_argument(
        "--findings", type=pathlib.Path, default=pathlib.Path("findings"), help="where they are written"
    )
    parser.add_argument("--output", type=pathlib.Path, help="CSV file for the rows of --all")
    parser.add_argument("--corpus", type=pathlib.Path, help="where what is worth keeping is kept; default: nowhere")
    options = parser.parse_args()
    corpus, findings = options.corpus and options.corpus.absolute(), options.findings.absolute()
    if not options.all:
        search(options.reader[0], options.runs, options.seconds, findings, corpus)
        return
    flags = [f"--runs={options.runs}", f"--seconds={options.seconds}", f"--findings={findings}"]
    rows = []
    for row in search_all(options.reader or TARGETS, [*flags, *([f"--corpus={corpus}"] if corpus else [])]):
        rows.append(row)
        print(row, flush=True)
    if options.output:
        from benchmarks import recording

        recording.write(pd.DataFrame(rows), options.output)
    sys.exit(int(any(row["findings"] for row in rows)))


if __name__ == "__main__":
    main()
