"""Raises Ctrl-C, SIGTERM and SIGHUP as one exception, `errors.Interrupted`, where the program can handle it."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from tff_personalization import errors


class Interruption:
    """Raises `errors.Interrupted` inside the context on SIGINT, SIGTERM and SIGHUP, at once or after `postponed()`.

    If it is raised during a call from C++ back to Python, as when TensorFlow builds a graph, another exception arrives
    or none. So after a signal any exception leaves the context as `errors.Interrupted`, and a lost one is raised when
    files are written next.
    """

    def __init__(self) -> None:
        self._postponing = False
        self._pending: int | None = None
        self._raised: int | None = None
        self._handlers_before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            numbers.append(signal.SIGHUP)
        self._handlers_before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        if self._raised is not None and error is not None and not isinstance(error, errors.Interrupted):
            raise errors.Interrupted(self._raised) from error

    def _handle(self, signal_number: int, frame: object) -> None:
        del frame
        if self._postponing and self._pending is None:
            self._pending = signal_number
        else:
            self._raised = signal_number
            raise errors.Interrupted(signal_number)

    @contextlib.contextmanager
    def postponed(self) -> Iterator[None]:
        """Postpones the first signal, so that files are written whole. A second signal interrupts.

        The second signal is for a write that never ends: Python waits forever for a thread that has no memory to start.
        """
        self._postponing = True
        try:
            yield
        finally:
            self._postponing = False
        received = self._pending if self._pending is not None else self._raised
        if received is not None:
            self._pending, self._raised = None, received
            raise errors.Interrupted(received)
