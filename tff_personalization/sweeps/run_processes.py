"""Runs in separate processes, several at once, and shows their output."""

import concurrent.futures
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from tff_personalization.execution import child_processes

_Key = TypeVar("_Key", bound=Hashable)
_SECONDS_BETWEEN_LINES = 20.0


@dataclasses.dataclass(frozen=True)
class Ended(Generic[_Key]):
    """A process that has ended.

    Attributes:
        key: the key with which it was started.
        error: why it failed, in words; "" if it did not.
        seconds: how long it took.
    """

    key: _Key
    error: str
    seconds: float


class RunProcesses(Generic[_Key]):
    """Processes by key. Their standard output is not shown, because their directories hold the results."""

    def __init__(self, at_once: int):
        """Allows this many processes at the same time."""
        self._at_once = at_once
        self._readers = concurrent.futures.ThreadPoolExecutor(at_once)
        self._interrupted = threading.Event()
        self._running: dict[concurrent.futures.Future, tuple[_Key, subprocess.Popen, float]] = {}

    @property
    def running(self) -> list[_Key]:
        """The keys of those that have not been waited for."""
        return [key for key, _, _ in self._running.values()]

    @property
    def full(self) -> bool:
        """Whether another process must wait."""
        return len(self._running) >= self._at_once

    def start(self, key: _Key, command: Sequence[str], name: str) -> None:
        """Starts a process. If several run at once, its progress lines begin with `name`."""
        process = subprocess.Popen(
            child_processes.ending_with_parent(list(command)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # This process passes Ctrl-C on, once.
        )
        reader = self._readers.submit(self._read, process, name if self._at_once > 1 else "")
        self._running[reader] = key, process, time.monotonic()

    def wait(self) -> Ended[_Key]:
        """Waits for the first process that ends."""
        done, _ = concurrent.futures.wait(self._running, return_when=concurrent.futures.FIRST_COMPLETED)
        reader = next(iter(done))
        key, process, started = self._running.pop(reader)
        code, error = process.wait(), ""
        if code:
            error = f"ended by {signal.Signals(-code).name}" if code < 0 else reader.result()
        return Ended(key, error, time.monotonic() - started)

    def interrupt(self, signal_number: int) -> None:
        """Sends all processes a signal and waits until they have saved their work. A second signal kills them."""
        self._interrupted.set()
        processes = [process for _, process, _ in self._running.values()]
        for process in processes:
            process.send_signal(signal_number)
        try:
            concurrent.futures.wait(self._running)
        finally:
            for process in processes:
                process.kill()
                process.wait()

    def _read(self, process: subprocess.Popen, name: str) -> str:
        """Shows a process's standard error until it ends or is interrupted, and returns its last line.

        Without a name it shows all lines; with a name, only the newest line at intervals.
        """
        assert process.stderr is not None
        end, shown, last = b"", "", time.monotonic()
        while piece := os.read(process.stderr.fileno(), 65536):
            end = (end + piece)[-4096:]
            if self._interrupted.is_set():
                continue
            with contextlib.suppress(OSError):  # Nobody reads it, and the process must not wait for a reader.
                if not name:
                    sys.stderr.write(piece.decode(errors="replace"))
                    sys.stderr.flush()
                elif time.monotonic() - last >= _SECONDS_BETWEEN_LINES and _last_line(end) != shown:
                    shown, last = _last_line(end), time.monotonic()
                    print(f"{name} {shown}", file=sys.stderr, flush=True)
        return _last_line(end)


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").replace("\r", "\n").strip().splitlines()
    return lines[-1] if lines else ""
