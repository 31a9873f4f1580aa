"""Federated personalization in TensorFlow Federated: train a global model, adapt it to each client, judge both.

Importing it silences the start-up messages of TensorFlow, which comes after it; `--verbosity=0` brings them back.
"""

import sys

from tff_personalization import deferred_imports, startup

startup.quiet(sys.argv)
deferred_imports.defer()
