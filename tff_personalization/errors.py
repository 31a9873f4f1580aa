"""Errors that a user can mend."""


class UserError(Exception):
    """Bad input: the message is one line that names the flag or file, what was wrong and what to do.

    `run_experiment.py` and the analysis scripts print the message alone, without a traceback, and exit with status 1.
    """
