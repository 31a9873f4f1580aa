"""Malformed input of every kind: is each refused in one line that names what was wrong, or else read correctly?

    python -m tests.stress.bad_input --each=200 --output=docs/reliability/bad_input.csv

Each kind of input is damaged or made up at random a given number of times, and given to its reader. Writes a row for
each kind: how often it was tried, refused in one line, accepted (with checked values), or had another outcome: another
exception, more than ten seconds, an impossible result. Exit status 1 if there is another outcome.
"""

import argparse
import collections
import contextlib
import io
import json
import pathlib
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from absl import flags, logging

from benchmarks import recording
from tests.tasks.sources import small_files
from tff_personalization import errors
from tff_personalization.experiment import config
from tff_personalization.records import checkpoints, round_tables, run_directory
from tff_personalization.sweeps import search
from tff_personalization.tasks import registry, sources

_SECONDS = 10
_NASTY = [
    *(
        "",
        " ",
        "0",
        "-1",
        "1e400",
        "-1e-9",
        "nan",
        "inf",
        "-inf",
        "1e309",
        "None",
        "true",
        "ü",
        "0x10",
        "9" * 40,
        "1,1",
    ),
    *("[]", "{}", "../x", "a/b", "\x00", "\n", "'", '"', "$(id)", "%s", "--", "=", ",", "1;2", "all", "🖋"),
]
Reader = Callable[[], None]
"""Reads one input, checks what it read if that was accepted."""


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content after one to three accidents: flipped bits, a cut, inserted, zeroed or repeated bytes."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(max(1, len(data)))
        length = draw.choice([1, 2, 8, 64, 512])
        kind = draw.randrange(5)
        if kind == 0 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = draw.randbytes(length)
        elif kind == 3:
            data[at : at + length] = bytes(min(length, len(data) - at))
        else:
            data[at:at] = data[at : at + length]
    return bytes(data)


def _check_archive(archive) -> None:
    assert archive.x.dtype == np.uint8
    assert archive.x.shape[1:] == (28, 28)
    assert archive.y.dtype == np.int32
    assert ((archive.y >= 0) & (archive.y < 62)).all()
    assert len(archive.x) == len(archive.y) == len(archive.client_index) == len(archive.is_test) > 0


def _read_archive(path: pathlib.Path) -> Reader:
    def read():
        _check_archive(sources.load(small_files.options(path), registry.TASKS["emnist62"].sources))

    return read


def npz_bytes(place: pathlib.Path, draw: random.Random) -> Reader:
    content = io.BytesIO()
    draw.choice([np.savez, np.savez_compressed])(content, **small_files.arrays())
    path = place / "x.npz"
    path.write_bytes(damaged(content.getvalue(), draw))
    return _read_archive(path)


def npz_arrays(place: pathlib.Path, draw: random.Random) -> Reader:
    """One array of an archive with another type, another shape, other values, or none at all."""
    arrays: dict = small_files.arrays()
    name = draw.choice(["images", "labels", "writer", "classes", "split", "ink", "source"])
    value = arrays.get(name, np.array(["a", "b", "c"]))
    change = draw.randrange(9)
    if change == 0:
        arrays.pop(name, None)
    elif change == 1:
        arrays[name] = value[: draw.randrange(len(value))]
    elif change == 2:
        arrays[name] = np.array([draw.choice([None, "x", 1.5, [1]]) for _ in value], object)
    elif change == 3:
        arrays[name] = np.zeros(len(value), draw.choice([np.complex64, bool, "S3", "M8[s]", np.float64]))
    elif change == 4:
        arrays[name] = value[..., np.newaxis]
    elif change == 5:
        number = draw.choice([np.nan, np.inf, -1.0, 62.0, 1e30, -0.5, 256.0])
        arrays[name] = np.full(np.shape(value), number)
    elif change == 6:
        arrays[name] = np.full(np.shape(value), draw.choice([-1, 62, 2**40, 2**62]))
    elif change == 7:
        arrays[name] = np.array(draw.choice(_NASTY))
    else:
        arrays[name] = np.array([draw.choice(_NASTY) for _ in value])
    np.savez(place / "x.npz", **arrays)
    return _read_archive(place / "x.npz")


def sqlite_bytes(place: pathlib.Path, draw: random.Random) -> Reader:
    path = place / "x.sqlite"
    path.unlink(missing_ok=True)
    small_files.write_sqlite(path, small_files.sqlite_rows())
    path.write_bytes(damaged(path.read_bytes(), draw))
    return _read_archive(path)


def sqlite_rows(place: pathlib.Path, draw: random.Random) -> Reader:
    """A database of the right schema whose rows are not."""
    path = place / "x.sqlite"
    path.unlink(missing_ok=True)
    rows: list = small_files.sqlite_rows()
    at = draw.randrange(len(rows))
    split, client, pixels, label = rows[at]
    blob = small_files.serialize(pixels, label)
    rows[at] = draw.choice(
        [
            (split, client, damaged(blob, draw)),
            (split, client, draw.choice([b"", b"\x00" * 9, None, "text", 7])),
            (split, client, draw.choice([pixels[:5], np.full((28, 28), np.nan), pixels + 9, -pixels]), label),
            (split, client, pixels, draw.choice([-1, 62, 2**40, [1, 2], []])),
            (draw.choice(["", "all_tests", None]), client, pixels, label),
            (split, draw.choice(["", None, 7, "ü" * 500]), pixels, label),
        ]
    )
    metadata = draw.choice([None, [], [("f0", "all_train", -3)], [("nobody", "all_train", 5)], [(None, None, None)]])
    small_files.write_sqlite(path, rows, metadata)
    return _read_archive(path)


def _flag_values() -> flags.FlagValues:
    values = flags.FlagValues()
    config.define_flags(values)
    flags.DEFINE_string("flagfile", "", "", flag_values=values)
    return values


def _take(arguments: list[str]) -> None:
    values = _flag_values()
    values(["x", *arguments])
    config.from_flags(values).run_name()


def flag_arguments(draw: random.Random) -> list[str]:
    """One to three flags with nasty values."""
    names = list(_flag_values())
    return [f"--{draw.choice(names)}={draw.choice(_NASTY)}" for _ in range(draw.randint(1, 3))]


def flag_values(place: pathlib.Path, draw: random.Random) -> Reader:
    del place
    arguments = flag_arguments(draw)
    return lambda: _take(arguments)


def flag_file(place: pathlib.Path, draw: random.Random) -> Reader:
    path = place / "x.flags"
    content = b"--method=reptile\n--rounds=20\n# a remark\n--client_learning_rate=0.1\n--strategies=fine_tune,ditto\n"
    path.write_bytes(damaged(content, draw))

    def read():
        try:
            _take([f"--flagfile={path}"])
        except UnicodeDecodeError as error:
            raise errors.UserError(str(error)) from error

    return read


def sweep_file(place: pathlib.Path, draw: random.Random) -> Reader:
    path = place / "x.toml"
    content = b'[grid]\nmethod = ["fed_avg", "fed_sgd"]\nseed = [1, 2]\n\n[[runs]]\nclients_per_round = 10\n'
    path.write_bytes(damaged(content, draw))

    def read():
        values = _flag_values()
        values(["x", f"--sweep={path}", f"--output_dir={place / 'runs'}"])
        search.sweep_of(values)

    return read


def experiment(place: pathlib.Path, *arguments: str):
    """An experiment of 20 rounds, evaluated every five, whose run directory is place/run."""
    values = _flag_values()
    values(["x", f"--output_dir={place}", "--run_name=run", "--rounds=20", "--rounds_per_evaluation=5", *arguments])
    return config.from_flags(values)


def config_json(place: pathlib.Path, draw: random.Random) -> Reader:
    settings = experiment(place)
    (place / "run").mkdir(exist_ok=True)
    content = json.dumps({"run_name": "run", "flags": settings.as_json()}).encode()
    text = damaged(content, draw) if draw.random() < 0.7 else draw.choice(_NASTY).encode()
    (place / "run" / "config.json").write_bytes(text)
    return lambda: run_directory.RunDirectory(settings) and None


def metrics_csv(place: pathlib.Path, draw: random.Random) -> Reader:
    directory = place / "run"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").unlink(missing_ok=True)
    rows = "".join(f"{number},20,0.5\r\n" for number in range(1, 13))
    (directory / "metrics.csv").write_bytes(damaged(f"round,clients,train_loss\r\n{rows}".encode(), draw))
    evaluations = "".join(f"{number},fine_tune,{epoch}\n" for number in (5, 10) for epoch in range(6))
    (directory / "evaluations.csv").write_text(f"round,strategy,epoch\n{evaluations}")

    def read():
        round_tables.keep_until(directory, experiment(place).config, 10)
        kept = pd.read_csv(directory / "metrics.csv")
        assert kept["round"].tolist() == list(range(1, 11))

    return read


def checkpoint(place: pathlib.Path, draw: random.Random) -> Reader:
    directory = place / "checkpoints"
    if not (directory / "round_2").exists():
        for number in (1, 2):
            checkpoints.Checkpoints(directory).save({"weights": np.full(50, number, np.float32)}, number)
    files = sorted(path for path in directory.rglob("*") if path.is_file() and "round_2" in str(path))
    path = draw.choice(files)
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, draw))
    changed = path.read_bytes() != whole

    def read():
        try:
            round_number, state = checkpoints.Checkpoints(directory).load_newest(lambda _: {"weights": 0})
            # The one before, or the newest if nothing relevant was changed.
            assert (np.asarray(state["weights"]) == round_number).all()
            assert round_number == 1 or not changed or path.suffix == ".json"
        finally:
            for other in [*directory.glob("*round_2*")]:
                shutil.rmtree(other) if other.is_dir() else other.unlink()

    return read


KINDS: dict[str, Callable[[pathlib.Path, random.Random], Reader]] = {
    "by-writer archive, damaged bytes": npz_bytes,
    "by-writer archive, wrong arrays": npz_arrays,
    "SQLite file, damaged bytes": sqlite_bytes,
    "SQLite file, wrong rows": sqlite_rows,
    "flags": flag_values,
    "flag file": flag_file,
    "sweep file": sweep_file,
    "config.json of a run": config_json,
    "metrics.csv of a run": metrics_csv,
    "checkpoint": checkpoint,
}


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_):
        raise TimeoutError(f"more than {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(read: Reader) -> str:
    """`refused` in one line, `accepted`, or what else happened."""
    try:
        with _time_limit():
            read()
        return "accepted"
    except errors.UserError as error:
        return "refused" if "\n" not in str(error) and "\x00" not in str(error) else f"not one line: {error!r}"
    except flags.Error:
        return "refused"  # in one line, made so by `startup.plain_flag_errors`
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def try_all(each: int, seed: int) -> pd.DataFrame:
    """A row for each kind: tried, refused, accepted, other; what else happened is printed."""
    rows = []
    for kind, make in KINDS.items():
        draw = random.Random(f"{kind} {seed}")
        counts: collections.Counter[str] = collections.Counter()
        with tempfile.TemporaryDirectory() as place:
            for number in range(each):
                found = outcome(make(pathlib.Path(place), draw))
                if found not in ("refused", "accepted"):
                    print(f"{kind}, number {number}: {found[:300]}", file=sys.stderr)
                    found = "other"
                counts[found] += 1
        rows.append({"kind": kind, "tried": each, **{name: counts[name] for name in ("refused", "accepted", "other")}})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=200, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=1, help="of the accidents")
    parser.add_argument("--output", type=pathlib.Path, help="CSV file for the rows")
    options = parser.parse_args()
    logging.set_verbosity(logging.ERROR)  # what is set aside is expected
    table = try_all(options.each, options.seed)
    print(table.to_string(index=False))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        recording.write(table, options.output)
    sys.exit(int(table["other"].any()))


if __name__ == "__main__":
    main()
