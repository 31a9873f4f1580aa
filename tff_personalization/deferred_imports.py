"""Defers modules that TensorFlow and TFF import but few runs need, until they are first used.

TFF imports TensorFlow Privacy (which imports TensorFlow Probability and more) for its private aggregations, and JAX for
`tff.jax`. TensorFlow imports JAX to convert functions for TensorFlow Lite. Together they take a third of the time of
`import tensorflow_federated`.
"""

import importlib
import sys
import types
from typing import Any

# Each module, and the names that TFF reads from it during its own import: types in annotations.
_DEFERRED = {
    "tensorflow_privacy": ("DPQuery", "QuantileEstimatorQuery"),
    "dp_accounting": ("DpEvent",),
    "tensorflow_federated.python.core.environments.jax": (),
    "jax": (),
}


class _Array:
    """Stands for `jax.Array` until JAX is imported."""


class _Deferred(types.ModuleType):
    """A placeholder that imports its module when one of its attributes is first read."""

    def __init__(self, name: str, annotations: tuple[str, ...]):
        super().__init__(name)
        self.__dict__["_annotations"] = annotations

    def __getattr__(self, attribute: str) -> Any:
        name = self.__name__
        if attribute in self.__dict__["_annotations"] and _is_being_imported("tensorflow_federated"):
            return Any
        if name == "jax" and _is_being_imported("tensorflow"):
            raise AttributeError(attribute)  # TensorFlow then works without it, as if JAX were not installed
        if name == "jax" and attribute == "Array" and sys.modules.get(name) is self:
            return _Array  # Matplotlib asks whether what it plots is one; there is none until JAX is imported
        if attribute in ("__file__", "__wrapped__"):  # `inspect` and `warnings` read them of every module
            raise AttributeError(attribute)
        if sys.modules.get(name) is self:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)


def _is_being_imported(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return getattr(spec, "_initializing", False)


def defer() -> None:
    """Defers the modules. Call this before anything imports TensorFlow."""
    if "tensorflow" in sys.modules:
        return
    for name, annotations in _DEFERRED.items():
        if name not in sys.modules:
            sys.modules[name] = _Deferred(name, annotations)
