"""Starts the program's processes as forks of a process that has imported TensorFlow, which saves seconds.

`Popen` and `run` work like those of `subprocess`, for Python commands (a file or `-m module`). A server imports
TensorFlow and TFF, starts none of their threads, and forks for each command. The fork runs the file or module as
`__main__`. It is a child of the test's process, as with `subprocess`: the process between them ends at once, and
orphans go to the nearest "subreaper" (Linux). Tests of the interpreter's own start or end need `subprocess` itself.
"""

import atexit
import ctypes
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from typing import Any

from tff_personalization import startup

_PR_SET_CHILD_SUBREAPER = 36
_MOST_BYTES = 1 << 20
_server: tuple[socket.socket, subprocess.Popen] | None = None


class Popen(subprocess.Popen):
    """A Python command as a fork of the server; arguments as in `subprocess.Popen`."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        """Python 3.11 calls this to start the process."""
        _, preexec_fn, _, _, cwd, env, _, _, _, *pipes = rest[:15]
        p2cread, _, _, c2pwrite, _, errwrite = pipes
        executable, *arguments = map(os.fspath, args)
        assert (executable, preexec_fn) == (sys.executable, None), "only commands of Python as they are"
        streams = [own if own != -1 else inherited for inherited, own in enumerate((p2cread, c2pwrite, errwrite))]
        message = {"arguments": arguments, "cwd": os.fspath(cwd or os.getcwd()), "env": dict(env or os.environ)}
        connection = _connection()
        socket.send_fds(connection, [json.dumps(message).encode()], streams)
        self.pid = int(connection.recv(100))
        self._child_created = True
        self._close_pipe_fds(*pipes)


def run(
    command: Any, check: bool = False, capture_output: bool = False, **settings: Any
) -> subprocess.CompletedProcess:
    """As `subprocess.run`."""
    if capture_output:
        settings.update(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with Popen(command, **settings) as process:
        output, errors = process.communicate()
    completed = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
    if check:
        completed.check_returncode()
    return completed


def _connection() -> socket.socket:
    """Connects to the server. Starts it if necessary; it ends with this process."""
    global _server
    if _server is None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.forked", str(its.fileno())]
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        _server = ours, subprocess.Popen(command, cwd=root, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)
        its.close()
    return _server[0]


def _serve(connection: socket.socket) -> None:
    with startup.without_collections():
        _import_all()
    while True:
        message, streams, *_ = socket.recv_fds(connection, _MOST_BYTES, 3)
        if not message:
            return
        told, tells = os.pipe()
        between = os.fork()
        if not between:
            program = os.fork()
            if program:
                os.write(tells, str(program).encode())
                os._exit(0)
            for descriptor in (told, tells, connection.detach()):
                os.close(descriptor)
            _become(streams=streams, **json.loads(message))
        os.waitpid(between, 0)  # before the answer: now it is the test's own child
        connection.send(os.read(told, 100))
        for descriptor in (told, tells, *streams):
            os.close(descriptor)


def _import_all() -> None:
    """Imports the slow modules of the program and its tools. Leaves no threads."""
    from tests import known_types
    from tff_personalization.experiment import config  # noqa: F401
    from tff_personalization.programs import report, training  # noqa: F401

    known_types.remember()
    startup.end_default_context()  # whose thread a fork would not have
    gc.freeze()  # No fork needs to collect, and so to copy, what they share.


def _become(arguments: list[str], cwd: str, env: dict[str, str], streams: list[int]) -> None:
    """Runs the command in this process, and exits like Python."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[1:1] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    status: Any = 1
    try:
        if arguments[0] == "-m":
            sys.argv, sys.path[0] = arguments[1:], cwd
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = arguments, os.path.dirname(os.path.abspath(arguments[0]))
            runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except SystemExit as left:
        status = left.code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status if isinstance(status, int) else 1 if status else 0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
