"""What other programs put into the environment, kept from ending a run: called before anything large is imported.

Only the standard library is used here, in the syntax of any Python 3: the interpreter may not be that of `.venv`.
docs/troubleshooting.md lists what is looked at, and the line that is printed.
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


def check_interpreter() -> None:
    """Ends a program that was started with another Python than that of `.venv`, in one line; ImportError in a library.

    Raises:
        ImportError: the packages are missing, or Python leaves docstrings out, and this is no program of the project.
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
    """Makes the environment one in which TensorFlow, Keras, Matplotlib and gRPC can work; says what it leaves out."""
    if "IPython" not in sys.modules:  # whose own variables these are
        os.environ.pop("MPLBACKEND", None)  # plots are drawn without a backend
        os.environ["KERAS_HOME"] = os.devnull  # a keras.json of the user's would change models; none is written
    for name in _ENDING:
        if os.environ.pop(name, None) is not None:
            _say(f"{name} is set for another program: it is not used.")
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        del os.environ["PYTHONWARNINGS"]
        warnings.resetwarnings()
        _say("PYTHONWARNINGS makes errors of warnings of TensorFlow's: it is not used.")
    _look_at_other_packages_last()
    _have_a_home()


def _is_program() -> bool:
    """Whether a command of the project is being started: `run_experiment.py`, or `python -m …`."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return sys.argv[:1] == ["-m"] or (main is not None and _ROOT in pathlib.Path(main).resolve().parents)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)


def _look_at_other_packages_last() -> None:
    """Puts folders of PYTHONPATH that have other versions of installed packages behind the installed ones."""
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
    """The names of the packages and modules in a folder, those that several projects call alike left out."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    folders = [name for name in names if os.path.isfile(os.path.join(folder, name, "__init__.py"))]
    modules = [name[:-3] for name in names if name.endswith(".py")]
    return [name for name in folders + modules if name not in ("tests", "test", "docs", "examples", "setup")]


def _have_a_home() -> None:
    """Where neither HOME nor the list of users names a home, a temporary folder is one: none named `~` is made."""
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = str(temporary_folder())
        _say(f"This user has no home (HOME is not set): {os.environ['HOME']} is used.")


def temporary_folder() -> pathlib.Path:
    """A folder for this user only that is there for a while: the same one each time, if nobody else has made it."""
    path = pathlib.Path(tempfile.gettempdir(), f"tff_personalization-{os.getuid()}")
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return path
    return pathlib.Path(tempfile.mkdtemp(prefix="tff_personalization-"))
