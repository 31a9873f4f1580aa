"""Errors that a user can fix, and interruption by a signal."""

import difflib
import lzma
import re
import signal
import struct
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

OF_ZIP_FILES = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, RuntimeError),
)
"""What Python raises for damaged zip files; RuntimeError means a member that seems encrypted or oddly compressed."""


class UserError(Exception):
    """Bad input. The message is one line that names the flag or file, what is wrong and what to do.

    `run_experiment.py` and the analysis scripts print only the message, without a traceback, and exit with status 1.
    Messages quote names from files. So line breaks become spaces, and characters that a terminal would not show, or
    would obey, become escapes such as \\x1b.
    """

    def __init__(self, message: str):
        super().__init__("".join(map(_shown, re.sub(r"[^\S ]+", " ", message))))


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


class Interrupted(BaseException):
    """The program was asked to stop. `signal_number` says how; a shell expects exit status 128 + that number."""

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


def described(value: Any) -> str:
    """What a value is, for a message that says what is expected."""
    if value is None:
        return "nothing"
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def did_you_mean(choices: Iterable[str], value: str, prefix: str = "") -> str:
    """The end of a message that names the choice most like `value`; "" if no choice is like it."""
    near = difflib.get_close_matches(value, list(choices), 1)
    return f" Did you mean {prefix}{near[0]}?" if near else ""
