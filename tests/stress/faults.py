"""Faults of a running program, and how to inject them."""

import contextlib
import dataclasses
import os
import pathlib
import resource
import signal
import subprocess
import threading
from collections.abc import Callable

_SECONDS_STOPPED = 3.0


class Disk:
    """A separate file system in memory, which can be filled. Needs the right to mount."""

    def __init__(self, path: pathlib.Path, megabytes: int = 200):
        self.path = path
        self._filler = path / "filler"
        path.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={megabytes}m"]
        self.mounted = not subprocess.run(
            ["mount", *options, "none", path], capture_output=True, check=False
        ).returncode

    def fill(self) -> None:
        """Leaves no byte free."""
        with self._filler.open("wb", buffering=0) as file:
            for piece in (1 << 20, 4096, 1):
                try:
                    while file.write(bytes(piece)) == piece:
                        pass
                except OSError:
                    pass

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def unmount(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", self.path], check=True)


@dataclasses.dataclass(frozen=True)
class Target:
    """A program that is stopped (SIGSTOP), and what belongs to it.

    Attributes:
        pid: of the program.
        children: the processes that it has started: TFF's worker.
        disk: where it writes.
    """

    pid: int
    children: tuple[int, ...]
    disk: Disk


@dataclasses.dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: in tables.
        inject: injects it.
        to_the_worker: whether it hits a worker, which the program should replace or wait for.
    """

    name: str
    inject: Callable[[Target], None]
    to_the_worker: bool = False


def signalled(number: signal.Signals) -> Callable[[Target], None]:
    return lambda target: os.kill(target.pid, number)


def _limit_memory(pid: int) -> None:
    """Limits the process to its present memory."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[0])
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize(), hard))


def _for_each_child(act: Callable[[int], None]) -> Callable[[Target], None]:
    def inject(target: Target) -> None:
        for pid in target.children:
            act(pid)

    return inject


def _stop_for_a_while(pid: int) -> None:
    def let_go_on() -> None:
        with contextlib.suppress(ProcessLookupError):  # The run may have ended without it.
            os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    threading.Timer(_SECONDS_STOPPED, let_go_on).start()


FAULTS = (
    Fault("kill -9 of the program", signalled(signal.SIGKILL)),
    Fault("SIGTERM", signalled(signal.SIGTERM)),
    Fault("SIGHUP", signalled(signal.SIGHUP)),
    Fault("Ctrl-C", signalled(signal.SIGINT)),
    Fault("no more memory for the program", lambda target: _limit_memory(target.pid)),
    Fault("disk full", lambda target: target.disk.fill()),
    Fault("kill -9 of the worker", _for_each_child(lambda pid: os.kill(pid, signal.SIGKILL)), to_the_worker=True),
    Fault("no more memory for the worker", _for_each_child(_limit_memory), to_the_worker=True),
    Fault("worker stopped for 3 s", _for_each_child(_stop_for_a_while), to_the_worker=True),
)
