"""Ctrl-C and SIGTERM as one exception, `errors.Interrupted`, raised where the program can stand it."""

import contextlib
import signal
from collections.abc import Iterator

from tff_personalization import errors


class Interruption:
    """Turns SIGINT and SIGTERM into `errors.Interrupted`, at once or, inside `postponed()`, at its end."""

    def __init__(self) -> None:
        self._postponing = False
        self._pending: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

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
