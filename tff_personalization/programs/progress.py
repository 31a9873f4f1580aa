"""The progress line of a run: the present task, its progress, and the time left."""

import contextlib
import sys
import threading
import time
from typing import IO

_FIRST_SECONDS, _TERMINAL_SECONDS, _OTHER_SECONDS = 1.0, 0.5, 20.0


class Line:
    """A line on standard error. Its own thread writes it, so it is updated while a round computes.

    On a terminal it is rewritten in place. Elsewhere a new line is written every 20 seconds.
    """

    def __init__(self, what: str, stream: IO[str] | None = None, seconds: float | None = None):
        """Shows `what` until the first `step`. `seconds` pass between two writes; the default depends on the stream."""
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._seconds = seconds or (_TERMINAL_SECONDS if self._terminal else _OTHER_SECONDS)
        self._lock, self._end = threading.Lock(), threading.Event()
        self._started = self._begun = self._counted = time.monotonic()
        self._what, self._unit, self._note = what, "", ""
        self._done = self._first = self._total = 0

    def step(self, what: str, total: int = 0, done: int = 0, unit: str = "") -> None:
        """Begins the next task.

        Args:
            what: the task in a few words.
            total: its number of units; 0 if they are not counted.
            done: how many of them were done before.
            unit: the name of a unit, in the singular.
        """
        with self._lock:
            self._what, self._unit, self._note = what, unit, ""
            self._total, self._done, self._first = total, done, done
            self._begun = self._counted = time.monotonic()
        if self._terminal:
            self._write()

    def update(self, count: int = 1, note: str | None = None) -> None:
        """Counts finished units. `note` stands at the end of the line until the next note."""
        with self._lock:
            self._done += count
            self._counted = time.monotonic()
            self._note = self._note if note is None else note

    def text(self) -> str:
        """The present text of the line."""
        with self._lock:
            now = time.monotonic()
            parts = [f"{self._what}: {self._done} of {self._total} {self._unit}s" if self._total else self._what]
            parts.append(_clock(now - self._started))
            if self._total > self._done > self._first:
                seconds_each = (self._counted - self._begun) / (self._done - self._first)
                left = seconds_each * (self._total - self._done) - (now - self._counted)
                parts.append(f"about {_clock(max(left, 0.0))} left")
            return " · ".join([*parts, self._note] if self._note else parts)

    def __enter__(self) -> "Line":
        with contextlib.suppress(RuntimeError):  # no memory for a thread: the run continues without the line
            threading.Thread(target=self._watch, name="progress", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end.set()
        if kind is None:
            self._write()
        if self._terminal:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write("\n")

    def _watch(self) -> None:
        seconds = min(_FIRST_SECONDS, self._seconds)  # an early refusal prints only its one line
        while not self._end.wait(seconds):
            self._write()
            seconds = self._seconds

    def _write(self) -> None:
        line = f"\r\x1b[2K{self.text()}" if self._terminal else f"{self.text()}\n"
        with contextlib.suppress(OSError, ValueError):  # the terminal may be closed; the run continues
            self._stream.write(line)
            self._stream.flush()


def accuracies(initial: float, personalized: float, before: tuple[float, float] | None) -> str:
    """The two accuracies of an evaluation, each with its change since the previous evaluation."""
    changes = ("", "") if before is None else (f" ({initial - before[0]:+.3f})", f" ({personalized - before[1]:+.3f})")
    return f"initial {initial:.3f}{changes[0]}, personalized {personalized:.3f}{changes[1]}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
