"""Kills a worker process that hangs, so that a new one can do its work."""

import contextlib
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


class Watchdog:
    """Kills a process that has been idle for a while, although this process waits for it and is idle too.

    A process that has no memory for a thread, or is stopped, neither ends nor answers. Time is counted in checks, one a
    second, that saw both processes, so a suspended machine does not count.
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
        still, before = 0.0, (0, 0.0, 0.0)
        while True:
            self._waiting.wait()
            time.sleep(_POLL_SECONDS)
            process = self._process()
            if process is None:
                continue
            with contextlib.suppress(psutil.Error):
                now = process.pid, _seconds(psutil.Process(process.pid)), _seconds(this)
                same = self._waiting.is_set() and now[:2] == before[:2] and now[2] - before[2] < _IDLE * _POLL_SECONDS
                still, before = still + _POLL_SECONDS if same else 0.0, now
                if still >= _STILL_SECONDS:
                    logging.warning("TFF's worker process has done nothing for %.0f s; stopping it.", still)
                    process.kill()
                    still = 0.0


def _seconds(process: psutil.Process) -> float:
    """The processor time that a process has used."""
    times = process.cpu_times()
    return times.user + times.system
