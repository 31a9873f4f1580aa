"""Exports the global model of a run for use without this project (docs/on-device.md).

    python -m tff_personalization.export RUN --format=keras          # a .keras file
    python -m tff_personalization.export RUN --format=saved_model    # a directory for tf.saved_model.load
    python -m tff_personalization.export RUN --format=tflite         # one file that is personalized on a device
    python -m tff_personalization.export RUN --format=tflite --quantize   # one that only predicts, a quarter as large

A file with the same name and .json, beside the output, describes the model's input and origin.
"""

import contextlib
import functools
import itertools
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags

from tff_personalization import errors, startup
from tff_personalization.export import global_model, saved_model, tflite
from tff_personalization.records import files, finished_run, tensorflow_errors

_KERAS, _SAVED_MODEL, _TFLITE = FORMATS = ("keras", "saved_model", "tflite")


def export(
    run: pathlib.Path,
    form: str,
    which: str = finished_run.LAST,
    path: pathlib.Path | None = None,
    strategy: str | None = None,
    quantize: bool = False,
) -> pathlib.Path:
    """Writes a run's global model, and its description beside it.

    Args:
        run: the run directory.
        form: one of `FORMATS`.
        which: the round, as in `FinishedRun.round_number`.
        path: the output's path; None for a place in the run directory.
        strategy: the strategy of a tflite file; None for the run's main one.
        quantize: whether the weights of a tflite file are int8; it then only predicts.

    Returns:
        The path of the output.

    Raises:
        UserError: the run, the round, the strategy or the path cannot be used.
    """
    if form != _TFLITE and (strategy or quantize):
        name = "strategy" if strategy else "quantize"
        raise errors.UserError(f"--{name} has no effect with --format={form}: remove it, or choose --format=tflite.")
    if quantize and strategy:
        raise errors.UserError("--strategy has no effect with --quantize, which makes a file that cannot be trained.")
    if form == _KERAS and path is not None and path.suffix != ".keras":
        raise errors.UserError(f"--output={path}: give a name that ends with .keras.")
    found = global_model.read(finished_run.FinishedRun.open(run), which)
    said = found.metadata(probabilities=form != _TFLITE and found.keras_gives_probabilities)
    write: Callable[[pathlib.Path], Any]
    if form == _KERAS:
        ending, write = ".keras", lambda to: found.keras.save(to)
    elif form == _SAVED_MODEL:
        ending, write = "_saved_model", functools.partial(saved_model.save, found)
    elif quantize:
        ending, write = "_quantized.tflite", lambda to: to.write_bytes(tflite.convert_quantized(found))
    else:
        how = tflite.personalization(found, strategy)
        said = tflite.metadata(found, how)
        ending, write = f"_{how.strategy}.tflite", lambda to: to.write_bytes(tflite.convert(found, how))
    path = path or run / "export" / f"round_{found.round_number}{ending}"
    try:
        with _whole(path, ".keras" if form == _KERAS else "", files.json_text(said) + "\n") as temporary:
            write(temporary)
    except OSError as error:
        raise errors.UserError(
            f"--output={path}: cannot be written ({error.strerror or error}): give another path."
        ) from error
    return path


@contextlib.contextmanager
def _whole(path: pathlib.Path, suffix: str, description: str) -> Iterator[pathlib.Path]:
    """A temporary path with a suffix, for a file or directory. It replaces `path` when it is whole.

    So does the description beside it. Both are written before one is replaced, so that there is room for both.

    Raises:
        OSError: it cannot be written, or `path` is a directory that is not a model's.
    """
    if path.is_dir() and not (path / "saved_model.pb").exists():
        raise IsADirectoryError(None, "Is a directory, and not one of a model", str(path))
    with _folder(path.parent), tempfile.TemporaryDirectory(prefix="export_", dir=path.parent) as directory:
        temporary = pathlib.Path(directory) / f"whole{suffix}"
        with tensorflow_errors.as_os_errors(temporary):
            yield temporary
        described, earlier = (pathlib.Path(directory) / name for name in ("described", "earlier"))
        described.write_text(description, encoding="utf-8")
        try:
            if path.is_dir():  # which a rename does not replace
                os.replace(path, earlier)
            os.replace(temporary, path)
        except BaseException:
            if earlier.exists():
                os.replace(earlier, path)
            raise
        os.replace(described, path.with_name(f"{path.name}.json"))
        files.wait_until_there(path)


@contextlib.contextmanager
def _folder(folder: pathlib.Path) -> Iterator[None]:
    """A context that makes a folder, with its parents. If the context fails, it removes those that it made."""
    made = list(itertools.takewhile(lambda parent: not parent.exists(), (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # another process has written there
            for parent in made:
                parent.rmdir()
        raise


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        raise errors.UserError("a run directory is expected: python -m tff_personalization.export RUN --format=tflite")
    given = flags.FLAGS
    path = export(
        pathlib.Path(argv[1]),
        given.format,
        given.round,
        pathlib.Path(given.output) if given.output else None,
        given.strategy,
        given.quantize,
    )
    size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    print(f"{path}: {size / 1e6:.2f} MB; its inputs and origin are in {path.name}.json beside it")
    return 0


if __name__ == "__main__":
    flags.DEFINE_enum("format", None, FORMATS, "What to write.", required=True)
    flags.DEFINE_string(
        "round", finished_run.LAST, "Round of the exported model: last, best (on validation clients), or a number."
    )
    flags.DEFINE_string("output", None, "Where to write it. Default: in RUN/export.")
    flags.DEFINE_enum(
        "strategy",
        None,
        list(tflite.TRAINED),
        "tflite: the strategy that the file follows. Default: the run's main one.",
    )
    flags.DEFINE_bool("quantize", False, "tflite: weights as int8; such a file only predicts.")
    startup.run_main(main)
