"""What a command does first and last: keep TensorFlow's start-up noise from the user, and put errors plainly."""

import contextlib
import errno
import functools
import gc
import logging as python_logging
import os
import select
import signal
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from absl import flags, logging
from absl.flags import _flagvalues

from tff_personalization import errors

# absl reads flag files with it: in UTF-8 whatever the locale, and with the byte order mark that Windows' editors write.
_flagvalues.open = functools.partial(open, encoding="utf-8-sig")  # type: ignore[attr-defined]

OF_PLUGINS: dict[str, str] = {}
"""The plugin that each of their files belongs to, as --plugin names it."""

_Hook = Callable[[Any], object]
# What RuntimeError, ImportError and SystemError say of it.
_WANT_OF_MEMORY = (
    *("can't start new thread", "failed to map segment", "annot allocate memory"),
    "error return without exception set",
)
_MEND = (
    "end what else runs here, or give fewer --cores; then run the same command again to resume from the last "
    "checkpoint. A smaller --clients_per_call makes it another run."
)
_WITHOUT_MEMORY = f"Error: memory ran out: {_MEND}\n".encode()


def quiet(argv: list[str]) -> None:
    """Silences TensorFlow's, XLA's and gRPC's start-up messages, unless `--verbosity` asks for them (0 or more).

    The package calls it when it is imported: TensorFlow looks at this once, when it is imported itself.
    """
    if _verbosity(argv) >= 0:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # of what TensorFlow Federated imports


def _verbosity(argv: list[str]) -> int:
    """The value of --verbosity, read before absl can: absl parses flags only after TensorFlow is imported."""
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
    """Parses flags; a mistake among them is one line on standard error and exit status 1, `--help` exit status 0."""
    with plain_flag_errors(), plain_ends_of_pipes():
        try:
            return flags.FLAGS(argv)
        except SystemExit:  # --help and its like have printed their text; absl calls this a failure
            sys.exit(0)


@contextlib.contextmanager
def plain_flag_errors() -> Iterator[None]:
    """Where flags are defined and parsed: a mistake is one line on standard error and exit status 1."""
    try:
        yield
    except errors.UserError as error:
        _leave(str(error))
    except flags.Error as error:
        _leave(f"{' '.join(str(error).split())} (see --help)")
    except UnicodeDecodeError as error:
        _leave(f"--flagfile: the file is not text ({error}): write one flag a line, in UTF-8.")


@contextlib.contextmanager
def plain_ends_of_pipes() -> Iterator[None]:
    """Where the program prints: a reader that leaves, as in `… | head`, ends it without a word, as SIGPIPE would."""
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
    """Python collects no garbage: that takes a quarter of the time of imports and graphs, which leave next to none."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextlib.contextmanager
def plain_memory_errors() -> Iterator[None]:
    """Where modules are imported and the program runs: running out of memory is one line and exit status 1.

    It ends at once, in whichever thread memory ran out: what comes after would want memory too, and a thread that
    could not begin would be waited for without end.
    """
    hooks: tuple[_Hook, _Hook] = sys.unraisablehook, threading.excepthook
    sys.unraisablehook, threading.excepthook = (_ends_without_memory(hook) for hook in hooks)
    try:
        yield
    except Exception as error:
        if isinstance(error, errors.UserError) or not _is_want_of_memory(error):
            raise
        _end_without_memory(error)
    finally:
        sys.unraisablehook, threading.excepthook = hooks


def _ends_without_memory(hook: _Hook) -> _Hook:
    """A hook for errors that nobody can catch, which ends the program if there was no memory."""

    def told(args: Any) -> None:
        if _is_want_of_memory(args.exc_value):
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
    finally:  # also where nobody hears it
        os._exit(1)


def _is_want_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from or because of, is that there was no memory."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        told = isinstance(error, RuntimeError | ImportError | SystemError)
        if isinstance(error, MemoryError) or (told and any(words in str(error) for words in _WANT_OF_MEMORY)):
            return True
        error = error.__cause__ or error.__context__
    return False


def with_plain_errors(main: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """`main`, with errors that a user can mend as one line and exit status 1, and signals as 128 + their number."""

    def run(argv: list[str]) -> int:
        if _verbosity(sys.argv) < 0:
            for category in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.filterwarnings("ignore", category=category)
            logging.set_verbosity(logging.WARNING)
            tensorflow = python_logging.getLogger("tensorflow")
            tensorflow.setLevel(python_logging.ERROR)
            # Of parts of a round that end with an error after another one did: the first error is told.
            python_logging.getLogger("asyncio").setLevel(python_logging.CRITICAL)
            # Of each assertion in TFF's secure sums, ten lines long.
            tensorflow.addFilter(lambda record: "Object was never used" not in record.getMessage())
        try:
            with plain_memory_errors(), plain_ends_of_pipes():
                return main(argv)
        except errors.UserError as error:
            _leave(str(error))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                _leave(
                    f"{error.filename or 'a file'}: cannot be written ({error.strerror}); make room, then start again."
                )
            if error.filename:
                _leave(f"{error.filename}: {error.strerror}: see to that file, then start again.")
            raise
        except Exception as error:
            if found := _frames_of_plugin(error):
                name, frames = found
                traceback.print_tb(frames)
                _leave(f"--plugin={name}: {type(error).__name__}: {' '.join(str(error).split())[:500]}")
            raise
        except errors.Interrupted as interrupted:
            with contextlib.suppress(OSError):  # The terminal may be gone, which SIGHUP says.
                print(f"\n{interrupted}: stopped. The same command resumes from here.", file=sys.stderr)
            sys.exit(128 + interrupted.signal_number)

    return run


def _frames_of_plugin(error: BaseException | None) -> tuple[str, types.TracebackType] | None:
    """The plugin in which an error, or one that led to it, was raised, and the traceback from its first frame on."""
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
