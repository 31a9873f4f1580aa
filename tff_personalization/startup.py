"""The start and end of every command: silences TensorFlow's start-up messages, and prints errors plainly."""

import contextlib
import errno
import functools
import gc
import logging as python_logging
import os
import re
import select
import signal
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from absl import app, flags, logging
from absl.flags import _flagvalues

from tff_personalization import errors

# absl opens flag files with it: as UTF-8 in any locale, with or without the byte order mark of Windows' editors.
_flagvalues.open = functools.partial(open, encoding="utf-8-sig")

OF_PLUGINS: dict[str, str] = {}
"""The plugin that each of their files belongs to, as --plugin names it."""

_Hook = Callable[[Any], object]
# The texts of RuntimeError, ImportError and SystemError when memory runs out.
_OUT_OF_MEMORY = (
    *("can't start new thread", "failed to map segment", "annot allocate memory"),
    "error return without exception set",
)
# What absl's parsers say of a value, in plain words.
_PARSERS = {
    r"invalid literal for int\(\).*": "give a whole number",
    r"could not convert string to float.*": "give a number",
    r"ERROR:: Unable to open flagfile: \[Errno \d+\] (.*): '(.*)'": r"--flagfile=\2: \1",
    r"\('Non-boolean argument to boolean flag.*": "give true or false",
}
_SHOWN = 40  # characters of a very long name
_MEND = (
    "stop other programs here, or give fewer --cores; then run the same command again to resume from the last "
    "checkpoint. A smaller --clients_per_call also helps, but starts a new run."
)
_WITHOUT_MEMORY = f"Error: memory ran out: {_MEND}\n".encode()


def quiet(argv: list[str]) -> None:
    """Silences TensorFlow's, XLA's and gRPC's start-up messages, unless `--verbosity` asks for them (0 or more).

    The package calls it at import, because TensorFlow reads this only once, at its own import.
    """
    if _verbosity(argv) >= 0:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # in TensorFlow Federated's imports


def end_default_context() -> None:
    """Ends TFF's own context, and the worker that it may have started, while the modules that it needs are there.

    TFF sets it when it is imported. Python deletes it after those modules, and then prints a traceback.
    """
    tff = sys.modules.get("tensorflow_federated")
    if tff is not None and hasattr(tff, "test"):  # else its import was interrupted
        tff.test.set_no_default_context()


def _verbosity(argv: list[str]) -> int:
    """The value of --verbosity, read here because absl parses flags only after TensorFlow is imported."""
    for i, argument in enumerate(argv):
        name, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name in ("verbosity", "v"):
            value = value or (argv[i + 1] if i + 1 < len(argv) else "")
            try:
                return int(value)
            except ValueError:
                return -1
    return -1


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags. A mistake prints one line on standard error, with exit status 1. `--help` has exit status 0."""
    with plain_flag_errors(), plain_ends_of_pipes():
        try:
            return flags.FLAGS(argv)
        except SystemExit:  # --help and the like have printed their text; absl exits with 1
            sys.exit(0)
        except RecursionError as error:  # absl compares an unknown name, however long, with each flag's name
            name = max((text.partition("=")[0] for text in flags.FLAGS.read_flags_from_files(argv)), key=len)
            raise errors.UserError(f"{name[:_SHOWN]}…: there is no such flag (see --help).") from error


@contextlib.contextmanager
def plain_flag_errors() -> Iterator[None]:
    """A context for defining and parsing flags: a mistake prints one line on standard error, with exit status 1."""
    try:
        yield
    except errors.UserError as error:
        _leave(str(error))
    except flags.UnrecognizedFlagError as error:
        _leave(unknown(error, flags.FLAGS))
    except flags.Error as error:
        _leave(f"{plain(error)} (see --help)")
    except UnicodeDecodeError as error:
        _leave(f"--flagfile: the file is not text ({error}): write one flag a line, in UTF-8.")


def unknown(error: flags.UnrecognizedFlagError, known: Iterable[str]) -> str:
    """That a flag is none of the `known` ones, with the name of the most similar one."""
    near = errors.did_you_mean(known, error.flagname, "--")
    return f"--{error.flagname}: there is no such flag (see --help).{near}"


def plain(error: flags.Error) -> str:
    """What absl says of a flag's value, in plain words."""
    text = " ".join(str(error).split()).removeprefix("flag ")
    for found, words in _PARSERS.items():
        text = re.sub(found, words, text)
    return text


@contextlib.contextmanager
def plain_ends_of_pipes() -> Iterator[None]:
    """A context for printing: if the reader leaves, as in `… | head`, the program ends silently, as with SIGPIPE."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        poll = select.poll()
        poll.register(1, 0)
        if not any(event & select.POLLERR for _, event in poll.poll(0)):
            raise  # another pipe than standard output
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where the rest goes that Python would print at its exit
        sys.exit(128 + signal.SIGPIPE)


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Turns garbage collection off: it takes a quarter of the time of imports and graphs, and finds little."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextlib.contextmanager
def plain_memory_errors() -> Iterator[None]:
    """A context for imports and the program: running out of memory prints one line, with exit status 1.

    The program ends at once, in any thread. Later code would need memory too, and Python would wait forever for a
    thread that could not start.
    """
    hooks: tuple[_Hook, _Hook] = sys.unraisablehook, threading.excepthook
    sys.unraisablehook, threading.excepthook = (_ends_without_memory(hook) for hook in hooks)
    try:
        yield
    except Exception as error:
        if isinstance(error, errors.UserError) or not _is_out_of_memory(error):
            raise
        _end_without_memory(error)
    finally:
        sys.unraisablehook, threading.excepthook = hooks


def _ends_without_memory(hook: _Hook) -> _Hook:
    """A hook for errors that cannot be caught. It ends the program if memory ran out."""

    def told(args: Any) -> None:
        if _is_out_of_memory(args.exc_value):
            _end_without_memory(args.exc_value)
        hook(args)

    return told


def _end_without_memory(error: BaseException | None) -> NoReturn:
    try:
        sys.stdout.flush()
        told = " ".join(str(error).split()) or "in Python"
        os.write(2, f"Error: memory ran out ({told}): {_MEND}\n".encode())
    except MemoryError:
        os.write(2, _WITHOUT_MEMORY)
    finally:  # even if standard error is closed
        os._exit(1)


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, is that memory ran out."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        told = isinstance(error, RuntimeError | ImportError | SystemError)
        if isinstance(error, MemoryError) or (told and any(words in str(error) for words in _OUT_OF_MEMORY)):
            return True
        error = error.__cause__ or error.__context__
    return False


def run_main(main: Callable[[list[str]], int], parse: Callable[[list[str]], list[str]] = parse_flags) -> None:
    """Runs a command: `parse` reads its flags, and `main` gets the other arguments. See `with_plain_errors`."""
    app.run(with_plain_errors(main), flags_parser=parse)


def with_plain_errors(main: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """Runs `main`. A user's error prints one line, with exit status 1; a signal gives status 128 + its number."""

    def run(argv: list[str]) -> int:
        if _verbosity(sys.argv) < 0:
            for category in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.filterwarnings("ignore", category=category)
            logging.set_verbosity(logging.WARNING)
            # Without the time, thread and line of code that absl puts before each message.
            logging.get_absl_handler().setFormatter(python_logging.Formatter("%(levelname)s: %(message)s"))
            tensorflow = python_logging.getLogger("tensorflow")
            tensorflow.setLevel(python_logging.ERROR)
            # If several parts of a round fail, only the first error is shown.
            python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
            # Each assertion in TFF's secure sums would print ten lines.
            tensorflow.addFilter(lambda record: "Object was never used" not in record.getMessage())
        try:
            with plain_memory_errors(), plain_ends_of_pipes():
                return main(argv)
        except errors.UserError as error:
            _leave(str(error))
        except OSError as error:
            what = error.filename or "a file"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                _leave(f"{what}: cannot be written ({error.strerror}); make room, then start again.")
            if error.filename or error.errno in (errno.EROFS, errno.EACCES):
                _leave(f"{what}: {error.strerror}: see to that file, then start again.")
            raise
        except (Exception, SystemExit) as error:
            if found := _frames_of_plugin(error):
                name, frames = found
                traceback.print_tb(frames)
                _leave(f"--plugin={name}: {type(error).__name__}: {' '.join(str(error).split())[:500]}")
            raise
        except errors.Interrupted as interrupted:
            with contextlib.suppress(OSError):  # After SIGHUP the terminal may be closed.
                print(f"\n{interrupted}: stopped. The same command resumes from here.", file=sys.stderr)
            sys.exit(128 + interrupted.signal_number)

    return run


def _frames_of_plugin(error: BaseException | None) -> tuple[str, types.TracebackType] | None:
    """The plugin that raised an error or one of its causes, and the traceback from the plugin's first frame on."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = error.__traceback__
        while frames is not None:
            if name := OF_PLUGINS.get(frames.tb_frame.f_code.co_filename):
                return name, frames
            frames = frames.tb_next
        error = error.__cause__ or error.__context__
    return None


def _leave(message: str) -> NoReturn:
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(1)
