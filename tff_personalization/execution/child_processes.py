"""Child processes that end with this one and that nobody else can reach; see `launch.py`."""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

PORT = 8000
"""On which a closed command is to listen: its network is its own."""

_LAUNCH = [sys.executable, "-I", "-S", str(pathlib.Path(__file__).with_name("launch.py"))]
_LONGEST_PATH = 90  # longest path of a Unix socket; the kernel's limit is 107 characters


class NotClosed(Exception):
    """A command cannot be isolated from the network on this machine; the message says why."""


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """A command that the kernel (Linux) ends when the thread that started it ends, in any way.

    A small Python program starts it. A `preexec_fn` would run in a copy of this process, which gRPC does not always
    survive.
    """
    return [*_LAUNCH, str(os.getpid()), *command] if sys.platform == "linux" else list(command)


class Closed:
    """A command in its own network, which ends with this process. Only this user can reach it, at `target`.

    Attributes:
        process: the command. When it is ready, it listens on `PORT` of its own network.
        target: gRPC's address of it: a Unix socket in a folder of this user.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], output: IO[Any]):
        """Starts a command that listens on `PORT`, with these environment variables and this file for its output.

        Raises:
            NotClosed: the kernel gives it no network of its own, or there is no place for a Unix socket.
        """
        self._folder = _folder_for_socket()
        try:
            path = os.path.join(self._folder, "worker")
            with _listening(path) as listener:
                self.process = start_closed(command, environment, output, listener, self._folder)
            self.target = f"unix:{path}"
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Removes the socket."""
        shutil.rmtree(self._folder, ignore_errors=True)


def start_closed(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: IO[Any] | None,
    listener: socket.socket,
    folder: str = "",
) -> subprocess.Popen:
    """Starts a command that listens on `PORT` of its own network, and ends with this process.

    Connections to `listener` are passed to it.

    Args:
        command, environment, output: as in `Closed`; None for this process's own output.
        listener: a socket that listens.
        folder: is deleted when it ends.

    Raises:
        NotClosed: the kernel gives it no network of its own.
    """
    if sys.platform != "linux":
        raise NotClosed("only Linux has network namespaces")
    hear, tell = os.pipe()
    try:
        closed = f"--closed={tell},{listener.fileno()},{PORT},{folder}"
        process = subprocess.Popen(
            [*_LAUNCH, str(os.getpid()), closed, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            pass_fds=[tell, listener.fileno()],
            start_new_session=True,  # Ctrl-C is for this process to handle.
        )
    finally:
        os.close(tell)
    with os.fdopen(hear, "rb") as told:
        answer = told.read().decode()
    if answer in ("closed", ""):  # It says nothing if it was killed; the process that waits for it sees that.
        return process
    process.wait()
    raise NotClosed(answer)


def _listening(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        listener.listen()
    except OSError as error:
        listener.close()
        raise NotClosed(f"no Unix socket can be made in {os.path.dirname(path)}: {error.strerror}") from error
    return listener


def _folder_for_socket() -> str:
    for place in (tempfile.gettempdir(), "/tmp", "/dev/shm"):
        # gRPC would read other characters as parts of an address.
        if len(place) < _LONGEST_PATH - 30 and re.fullmatch(r"[\w./-]+", place, re.ASCII):
            with contextlib.suppress(OSError):
                return tempfile.mkdtemp(prefix="tff_worker-", dir=place)
    raise NotClosed("there is no temporary folder for a Unix socket")
