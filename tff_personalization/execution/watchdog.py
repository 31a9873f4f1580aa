"""Kills a worker process that hangs, so that a new one can do its work."""

import contextlib
import pathlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import psutil
from absl import logging

_STILL_SECONDS = 60.0
_POLL_SECONDS = 1.0
# This process counts as waiting below this many seconds of processor time a second; event loops use less.
_IDLE = 0.2
# It is not waiting, but starved of processors, if one of its threads wants more than this.
_STARVED = 0.5


class Watchdog:
    """Kills a process that has been idle for a while, although this process waits for it and is idle too.

    A process that has no memory for a thread, or is stopped, neither ends nor answers. Time is counted in checks, one a
    second, that saw both processes, so a suspended machine does not count. This process is not idle if it has work and
    gets no processor, as with `nice` on a machine with other work.
    """

    def __init__(self, process: Callable[[], subprocess.Popen | None]):
        """Begins to watch, in its own thread. `process` returns the process that is waited for."""
        self._process = process
        self._waiting = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A context in which this process waits for the other one."""
        self._waiting.set()
        try:
            yield
        finally:
            self._waiting.clear()

    def _watch(self) -> None:
        this = psutil.Process()
        still, before, wanted = 0.0, (0, 0.0, 0.0), seconds_wanted(this.pid)
        while True:
            self._waiting.wait()
            time.sleep(_POLL_SECONDS)
            process = self._process()
            if process is None:
                continue
            with contextlib.suppress(psutil.Error):
                now = process.pid, _seconds(psutil.Process(process.pid)), _seconds(this)
                wanted_before, wanted = wanted, seconds_wanted(this.pid)
                most = max((wanted[thread] - wanted_before.get(thread, 0.0) for thread in wanted), default=0.0)
                idle = now[2] - before[2] < _IDLE * _POLL_SECONDS and most < _STARVED * _POLL_SECONDS
                same = self._waiting.is_set() and now[:2] == before[:2] and idle
                still, before = still + _POLL_SECONDS if same else 0.0, now
                if still >= _STILL_SECONDS:
                    logging.warning("TFF's worker process has done nothing for %.0f s; stopping it.", still)
                    process.kill()
                    still = 0.0


def _seconds(process: psutil.Process) -> float:
    """The processor time that a process has used."""
    times = process.cpu_times()
    return times.user + times.system


def seconds_wanted(pid: int) -> dict[str, float]:
    """The processor time that each thread of a process has used or waited for; empty if the kernel does not say."""
    found = {}
    with contextlib.suppress(OSError, ValueError):
        for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                used, waited, _ = (thread / "schedstat").read_text().split()
                found[thread.name] = (int(used) + int(waited)) / 1e9
    return found
