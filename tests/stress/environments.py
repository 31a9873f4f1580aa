"""Realistic environments: does each command work there, or end in one clear line?

    python -m tests.stress.environments --output=docs/reliability/environments.csv

Every command (start, resume, sweep, analysis, export, draw) is tried as a process of its own in every environment of
`ENVIRONMENTS`. *Right* means exit status 0 and the command's output file. *One clear line* means status 1 and one line
`Error: …` that says what the environment lacks. Anything else fails, and so does a folder called `~`.

In the environment whose terminal goes away, each command runs in a terminal of its own (a pseudoterminal). The terminal
is closed halfway, or when the drawing page listens. *Right* then means that the command ended by SIGHUP, that no
process of its session is left, and that the same command in another terminal ends right.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from benchmarks import recording
from tests import processes
from tests.stress import marked_runs

_SECONDS = 600
_PROGRAM = str(processes.ROOT / "run_experiment.py")
_SMALL = (
    *("--model=linear", "--rounds=2", "--clients_per_round=2", "--test_clients=4", "--local_epochs=1"),
    *("--personalization_epochs=1", "--strategies=fine_tune", "--rounds_per_evaluation=0"),
)
_LISTENS = "Draw at http://127.0.0.1:"
_PROXY = "http://10.255.255.1:3128"  # where nobody is
_WITHOUT_NAMESPACES = ["sh", "-c", 'echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"', "sh"]
_OTHER_PYTHON = os.path.realpath(sys.executable)  # that .venv was made of, without its packages
_PATCH = """
import errno, fcntl, os, threading

def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

replace = os.replace

def late(*paths):
    threading.Timer(0.2, replace, paths).start()
"""


@dataclasses.dataclass(frozen=True)
class Environment:
    """One environment.

    Attributes:
        variables: the variables that it sets.
        prefix: a prefix of the command.
        customize: Python that runs in each interpreter at its start.
        folder: the name of the folder of runs.
        refused: commands that end in one line there, and words of that line.
        loses_terminal: whether its terminal goes away.
    """

    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prefix: Sequence[str] = ()
    customize: str = ""
    folder: str = "runs"
    refused: tuple[tuple[str, ...], str] = ((), "")
    loses_terminal: bool = False


ENVIRONMENTS: dict[str, Environment] = {
    "nothing of note": Environment(),
    "a notebook's MPLBACKEND": Environment({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}),
    "proxies": Environment({name: _PROXY for name in ("http_proxy", "https_proxy", "grpc_proxy")}),
    "no home, no such user": Environment(
        prefix=["unshare", "-U", "--map-user=12345", "env", "-i", "PATH=/usr/bin:/bin"]
    ),
    "a home that cannot be written": Environment({"HOME": "/proc"}),
    "PYTHONWARNINGS=error": Environment({"PYTHONWARNINGS": "error"}),
    "variables for TensorFlow, gRPC, OpenMP": Environment(
        {
            "TF_XLA_FLAGS": "--no_such_flag",
            "XLA_FLAGS": "--no_such_flag",
            "GRPC_POLL_STRATEGY": "no_such",
            "OMP_NUM_THREADS": "many",
            "KERAS_BACKEND": "torch",
            "TF_USE_LEGACY_KERAS": "1",
        }
    ),
    "LD_PRELOAD of another tool": Environment({"LD_PRELOAD": "/no/such/library.so"}),
    "GIT_DIR of another repository": Environment({"GIT_DIR": "/no/such/repository"}),
    "no temporary folder of that name": Environment({"TMPDIR": "/no/such/folder", "TERM": "dumb"}),
    "a file system without locks": Environment(customize=f"{_PATCH}\nfcntl.flock = flock\n"),
    "renames that are seen late": Environment(customize=f"{_PATCH}\nos.replace = late\n"),
    "no network namespaces": Environment(prefix=["unshare", "-Ur", *_WITHOUT_NAMESPACES]),
    "no loopback": Environment(prefix=["unshare", "-Urn"]),
    "neither": Environment(
        prefix=["unshare", "-Urn", *_WITHOUT_NAMESPACES],
        refused=(("start", "resume", "sweep"), "loopback is down"),
    ),
    "spaces and commas in paths": Environment(folder="runs of Smith, J., and others"),
    "another Python than .venv's": Environment(
        prefix=["sh", "-c", 'shift; exec "$0" "$@"', _OTHER_PYTHON],
        refused=(("start", "resume", "sweep", "analysis", "export", "draw"), "lacks the packages"),
    ),
    "a terminal that goes away": Environment(loses_terminal=True),
}


class Place:
    """Where trials are: made-up data, and a finished run of it that is copied for each."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.archive = marked_runs.write_archive(path / "made_up.npz")
        command = [sys.executable, _PROGRAM, *self.flags(path / "made"), "--run_name=run", "--noplots"]
        subprocess.run(command, check=True, capture_output=True, cwd=processes.ROOT)

    def flags(self, output_dir: pathlib.Path) -> list[str]:
        return [f"--client_data={self.archive}", f"--output_dir={output_dir}", *_SMALL]

    def copy(self, folder: pathlib.Path, finished: bool = True) -> pathlib.Path:
        """A copy of the run, or of what it was before its final evaluation."""
        run = shutil.copytree(self.path / "made" / "run", folder / "run")
        if not finished:
            for name in ("summary.json", "clients.csv", "distribution.csv"):
                (run / name).unlink()
        return run


def _start(place: Place, folder: pathlib.Path) -> tuple[list[str], pathlib.Path]:
    flags = ["--client_data=handwriting", "--num_clients=8", f"--output_dir={folder}", "--run_name=new", *_SMALL]
    return [_PROGRAM, *flags], folder / "new" / "plots"


def _resume(place: Place, folder: pathlib.Path) -> tuple[list[str], pathlib.Path]:
    run = place.copy(folder, finished=False)
    return [_PROGRAM, *place.flags(folder), "--run_name=run", "--noplots"], run / "summary.json"


def _sweep(place: Place, folder: pathlib.Path) -> tuple[list[str], pathlib.Path]:
    file = folder / "two.toml"
    file.write_text("[[runs]]\nlabel = 'a'\nseed = 2\n", encoding="utf-8-sig")
    return [_PROGRAM, f"--sweep={file}", *place.flags(folder), "--noplots"], folder / "two" / "sweep.csv"


def _analysis(place: Place, folder: pathlib.Path) -> tuple[list[str], pathlib.Path]:
    run = place.copy(folder)
    return ["-m", "analysis.accuracy_distributions", str(run)], run / "plots" / "accuracy_distributions.png"


def _export(place: Place, folder: pathlib.Path) -> tuple[list[str], pathlib.Path]:
    run = place.copy(folder)
    return ["-m", "tff_personalization.export", str(run), "--format=keras"], run / "export" / "round_2.keras"


def _draw(place: Place, folder: pathlib.Path) -> tuple[list[str], pathlib.Path]:
    run = place.copy(folder)
    return ["-m", "tff_personalization.draw", str(run), "--port=0"], run


COMMANDS: dict[str, Callable[[Place, pathlib.Path], tuple[list[str], pathlib.Path]]] = {
    "start": _start,
    "resume": _resume,
    "sweep": _sweep,
    "analysis": _analysis,
    "export": _export,
    "draw": _draw,
}


def judged(status: int | str, said: str, left: bool, words: str) -> str:
    """How a command has ended: "right", "one clear line", or what is wrong.

    Args:
        status: its exit status, or another end.
        said: its standard error.
        left: whether it wrote its output.
        words: words of the expected line; "" if it should end right.
    """
    if "Traceback" in said:
        return "a traceback"
    if words:
        errors = [line for line in said.splitlines() if line.startswith("Error: ")]
        return "one clear line" if status == 1 and len(errors) == 1 and words in errors[0] else f"no line, {status}"
    if status == 0:
        return "right" if left else "nothing left"
    return f"exit status {status}"


def trial(place: Place, environment: Environment, kind: str) -> dict:
    """Tries a command in an environment; a row."""
    base = pathlib.Path(tempfile.mkdtemp(dir=place.path))
    folder = base / environment.folder
    folder.mkdir()
    variables = {**os.environ, **environment.variables}
    if environment.customize:
        (base / "custom").mkdir()
        (base / "custom" / "sitecustomize.py").write_text(environment.customize)
        variables["PYTHONPATH"] = str(base / "custom")
    if environment.prefix:
        base.chmod(0o777)
    arguments, leaves = COMMANDS[kind](place, folder)
    started = time.monotonic()
    command = [*environment.prefix, sys.executable, *arguments]
    wrong = _lose_terminal(place, kind, command, base / "whole") if environment.loses_terminal else ""
    status, text = _end(kind, command, variables, base / "said")
    words = environment.refused[1] if kind in environment.refused[0] else ""
    found = wrong or judged(status, text, leaves.exists(), words)
    if (processes.ROOT / "~").exists():
        found = "a folder called ~"
    if found not in ("right", "one clear line"):
        print(text, file=sys.stderr)
    shutil.rmtree(base, ignore_errors=True)
    return {"command": kind, "found": found, "seconds": round(time.monotonic() - started, 1)}


def _end(kind: str, command: list[str], variables: Mapping[str, str], file: pathlib.Path) -> tuple[int | str, str]:
    """Runs a command to its end: its exit status, and its standard error. The drawing page ends when it listens."""
    shown = file.with_suffix(".shown")
    with file.open("w+") as said, shown.open("w") as output:
        process = subprocess.Popen(
            command, cwd=processes.ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=said
        )
        status: int | str = _served(process, shown) if kind == "draw" else _ended(process)
        said.seek(0)
        return status, said.read()


def _ended(process: subprocess.Popen) -> int | str:
    try:
        return process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "hung"


def _served(process: subprocess.Popen, shown: pathlib.Path) -> int | str:
    """Waits for the drawing page, then ends it: 0 if it came."""
    deadline = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if _LISTENS in shown.read_text():
            process.terminate()
            process.wait()
            return 0
        select.select([], [], [], 0.1)
    return _ended(process) if process.poll() is not None else "hung"


def _lose_terminal(place: Place, kind: str, command: list[str], folder: pathlib.Path) -> str:
    """Runs a command in a terminal that goes away halfway: what was wrong, "" if it ended by that.

    Args:
        place: of the data.
        kind: the command's name.
        command: the command.
        folder: where the same is done to its end first, which shows how long that takes.
    """
    folder.mkdir()
    arguments, _ = COMMANDS[kind](place, folder)
    started = time.monotonic()
    _end(kind, [sys.executable, *arguments], os.environ, folder / "said")
    halfway = (time.monotonic() - started) / 2
    ours, its = pty.openpty()
    process = subprocess.Popen(["setsid", "--ctty", *command], cwd=processes.ROOT, stdin=its, stdout=its, stderr=its)
    os.close(its)
    said = _read(ours, halfway, _LISTENS if kind == "draw" else "")
    early, children = process.poll(), processes.children(process.pid)
    os.close(ours)
    status = _ended(process)
    if early is not None or status not in (-signal.SIGHUP, 128 + signal.SIGHUP):
        return f"exit status {status}, {'before' if early is not None else 'after'} its terminal went away: {said}"
    return "a process outlived the terminal" if marked_runs.outlives(children) else ""


def _read(terminal: int, seconds: float, words: str) -> str:
    """What a terminal shows for some time, or, if there are words to wait for, until it shows these."""
    shown, deadline = "", time.monotonic() + (_SECONDS if words else seconds)
    with contextlib.suppress(OSError):  # The command has ended.
        while not (words and words in shown) and (left := deadline - time.monotonic()) > 0:
            if select.select([terminal], [], [], left)[0]:
                shown += os.read(terminal, 1 << 16).decode(errors="replace")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", action="append", help="of those that are tried; all if none is given")
    parser.add_argument("--command", action="append", choices=COMMANDS, help="that is tried; all if none is given")
    parser.add_argument("--output", type=pathlib.Path, help="CSV file for the rows")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        pathlib.Path(temporary).chmod(0o755)
        place = Place(pathlib.Path(temporary))
        for name in options.environment or ENVIRONMENTS:
            for kind in options.command or COMMANDS:
                rows.append({"environment": name, **trial(place, ENVIRONMENTS[name], kind)})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(pd.crosstab(table["environment"], table["found"], margins=True).to_string())
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        recording.write(table, options.output)
    sys.exit(int(not table["found"].isin(["right", "one clear line"]).all()))


if __name__ == "__main__":
    main()
