"""Ctrl-C and SIGTERM as one exception, `errors.Interrupted`, raised where the program can stand it."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from tff_personalization import errors


class Interruption:
    """A context in which SIGINT and SIGTERM are `errors.Interrupted`, at once or at the end of `postponed()`."""

    def __init__(self) -> None:
        self._postponing = False
        self._pending: int | None = None
        self._handlers_before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        self._handlers_before = {n: signal.signal(n, self._handle) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _handle(self, signal_number: int, frame: object) -> None:
        del frame
        if self._postponing:
            self._pending = signal_number
        else:
            raise errors.Interrupted(signal_number)

    @contextlib.contextmanager
    def postponed(self) -> Iterator[None]:
        """Inside, nothing is interrupted: files are written whole."""
        self._postponing = True
        try:
            yield
        finally:
            self._postponing = False
        if self._pending is not None:
            pending, self._pending = self._pending, None
            raise errors.Interrupted(pending)
