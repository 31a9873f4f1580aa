"""Federated personalization in TensorFlow Federated: train a global model, adapt it to each client, evaluate both.

Import it before TensorFlow: it repairs environment variables that break TensorFlow and silences TensorFlow's start-up
messages (`--verbosity=0` shows them). It also keeps TFF quiet when the program ends. It has the functions of `api`:
`run`, `open_run`, `evaluate` and `compare`.
"""

from tff_personalization import environment

environment.check_interpreter()
environment.settle()

import atexit  # noqa: E402
import importlib  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

from tff_personalization import deferred_imports, startup  # noqa: E402

startup.quiet(sys.argv)
deferred_imports.defer()
atexit.register(startup.end_default_context)

_API = ("run", "open_run", "evaluate", "compare")  # their module imports TensorFlow, so it is imported at first use


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(importlib.import_module(f"{__name__}.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
