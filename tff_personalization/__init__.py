"""Federated personalization in TensorFlow Federated: train a global model, adapt it to each client, judge both.

Importing it makes the environment one in which TensorFlow works, and silences the start-up messages of TensorFlow,
which comes after it; `--verbosity=0` brings them back.
"""

from tff_personalization import environment

environment.check_interpreter()
environment.settle()

import sys  # noqa: E402

from tff_personalization import deferred_imports, startup  # noqa: E402

startup.quiet(sys.argv)
deferred_imports.defer()
