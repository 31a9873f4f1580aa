"""Errors that a user can fix, and interruption by a signal."""

import signal


class UserError(Exception):
    """Bad input. The message is one line that names the flag or file, what is wrong and what to do.

    `run_experiment.py` and the analysis scripts print only the message, without a traceback, and exit with status 1.
    """


class Interrupted(BaseException):
    """The program was asked to stop. `signal_number` says how; a shell expects exit status 128 + that number."""

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number
