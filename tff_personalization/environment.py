"""Keeps environment variables of other programs from breaking a run. Called before any large import.

It uses only the standard library and the syntax of any Python 3, because the interpreter may not be that of `.venv`.
docs/troubleshooting.md lists the variables and the printed lines.
"""

import contextlib
import importlib.util
import os
import pathlib
import stat
import sys
import sysconfig
import tempfile
import warnings

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_ENDING = ("TF_XLA_FLAGS", "GRPC_POLL_STRATEGY")
"""Variables that nothing here needs. With a value that it does not know, TensorFlow or gRPC aborts the program."""


_FOLDERS = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR")


def check_interpreter() -> None:
    """If the Python is not that of `.venv`, ends a program with one line, or raises ImportError in a library.

    Raises:
        ImportError: the packages are missing, or Python omits docstrings, and this is not a program of the project.
    """
    if importlib.util.find_spec("absl") is None or importlib.util.find_spec("pandas") is None:
        message = (
            f"{sys.executable} lacks the packages that this project needs: start with make run, which installs them "
            "into .venv, or with .venv/bin/python."
        )
    elif sys.flags.optimize > 1:
        message = f"PYTHONOPTIMIZE={sys.flags.optimize} removes docstrings that TensorFlow reads: unset it."
    else:
        return
    if _is_program():
        sys.exit("Error: " + message)
    raise ImportError(message)


def settle() -> None:
    """Repairs the environment for TensorFlow, Keras, Matplotlib and gRPC, and says what it ignores."""
    _have_streams()
    if "IPython" not in sys.modules:  # IPython sets these itself
        os.environ.pop("MPLBACKEND", None)  # plots need no display backend
        os.environ["KERAS_HOME"] = os.devnull  # the user's keras.json would change models
    for name in list(os.environ):
        if name.startswith("JAX_") or (name in _FOLDERS and not os.path.isabs(os.environ[name])):
            del os.environ[name]  # JAX is not used; a relative folder would be made wherever a program starts
    for name in _ENDING:
        if os.environ.pop(name, None) is not None:
            _say(f"{name} is set for another program: it is not used.")
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        del os.environ["PYTHONWARNINGS"]
        warnings.resetwarnings()
        _say("PYTHONWARNINGS turns TensorFlow's warnings into errors: it is not used.")
    _look_at_other_packages_last()
    _have_a_home()


def _is_program() -> bool:
    """Whether the process is a command of the project: `run_experiment.py`, or `python -m …`."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return sys.argv[:1] == ["-m"] or (main is not None and _ROOT in pathlib.Path(main).resolve().parents)


def _have_streams() -> None:
    """Opens closed standard streams on the null device. Otherwise the next opened file would become one of them.

    Open streams print characters that their encoding lacks as escapes.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
                os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8"))
        elif name != "stdin" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)


def _look_at_other_packages_last() -> None:
    """Moves folders of PYTHONPATH with other versions of installed packages behind the installed ones."""
    installed = set(_packages(sysconfig.get_path("purelib")))
    for folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        others = sorted(installed.intersection(_packages(folder)))
        if others and folder in sys.path and not _is_ours(folder):
            sys.path.remove(folder)
            sys.path.append(folder)
            _say(f"PYTHONPATH: {folder} has another {others[0]}: the installed one is used.")


def _is_ours(folder: str) -> bool:
    path = pathlib.Path(folder).resolve()
    return path == _ROOT or str(path) == os.path.realpath(sysconfig.get_path("purelib"))


def _packages(folder: str) -> "list[str]":
    """The names of the packages and modules in a folder, without names that many projects use."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    folders = [name for name in names if os.path.isfile(os.path.join(folder, name, "__init__.py"))]
    modules = [name[:-3] for name in names if name.endswith(".py")]
    return [name for name in folders + modules if name not in ("tests", "test", "docs", "examples", "setup")]


def _have_a_home() -> None:
    """If neither HOME nor the list of users names a home, uses a temporary folder, so that no folder `~` is made."""
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = str(temporary_folder())
        _say(f"This user has no home (HOME is not set): {os.environ['HOME']} is used.")


def temporary_folder() -> pathlib.Path:
    """A temporary folder for this user only: the same one each time, unless another user has made it."""
    path = pathlib.Path(tempfile.gettempdir(), f"tff_personalization-{os.getuid()}")
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return path
    return pathlib.Path(tempfile.mkdtemp(prefix="tff_personalization-"))
