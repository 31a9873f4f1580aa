"""Lets runs in one process share TFF's worker and graphs, because building a graph takes seconds.

A graph is built again only if an input of building differs. Each run still computes its own results.
"""

import contextlib
import dataclasses
import functools
import hashlib
import types
from unittest import mock

import numpy as np

from tff_personalization import methods, schedules
from tff_personalization.execution import runtime
from tff_personalization.models import keras_network
from tff_personalization.personalization import evaluation, strategies

_built: dict = {}


def _once(kind, key, build):
    """The result of `build`, made once for each key."""
    key = kind, repr(key)
    if key not in _built:
        _built[key] = build()
    return _built[key]


def _digest(arrays):
    """A hash of arrays."""
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _network(model):
    """The identity of a network: its functions, by name and contents, and its weights."""
    functions = [_function(part) for part in (model.stem, model.after_stem.logits)]
    return functions, model.scoring, model.input_spec, _digest(model.initial_weights[0])


def _function(function):
    """A function's name and contents: a Keras model's layers, arrays, functions, or anything with a `repr`."""
    if isinstance(owner := getattr(function, "__self__", None), keras_network._Network):
        return function.__qualname__, owner._model.to_json()
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    return function.__module__, function.__qualname__, owner, [_content(one) for one in held]


def _content(held):
    if isinstance(held, types.FunctionType):
        return _function(held)
    arrays = isinstance(held, tuple) and all(isinstance(array, np.ndarray) for array in held)
    return _digest(held) if arrays else held


def _training(name, method, setup):
    """The identity of a method's training: settings, network and clients; with a schedule, the number of rounds."""
    specs = [value for value in setup.settings.values.values() if hasattr(value, "schedule")]
    scheduled = any(spec.schedule != schedules.Schedule() for spec in specs)
    if setup.settings.values.get("aggregator", "mean") != "mean":  # which may have its own settings
        return method.build(setup)
    clients = [(client, _digest(setup.train_data.examples(client))) for client in setup.train_clients]
    key = name, setup.settings.values, _network(setup.model), clients, setup.seed, setup.rounds if scheduled else None
    return _once("training", key, lambda: method.build(setup))


@contextlib.contextmanager
def shared(worker):
    """A context in which runs compute on the worker and reuse graphs."""
    get, build = methods.get, evaluation.build_personalization_evaluation

    def get_cached(name):
        method = get(name)
        return dataclasses.replace(method, build=functools.partial(_training, name, method))

    def build_cached(model, optimizer, *, initial_weights, own_settings, **settings):
        key = (
            _network(model),
            (type(optimizer), vars(optimizer)),
            settings,
            [own_settings(strategies.STRATEGIES[name].settings).values for name in settings["strategies"]],
            (initial_weights.name, len(initial_weights.flat)),
        )
        more = {"initial_weights": initial_weights, "own_settings": own_settings}
        # Keeps objects alive that the key names by address.
        made = _once("evaluation", key, lambda: (build(model, optimizer, **more, **settings), settings))
        return made[0]

    with (
        mock.patch.object(methods, "get", get_cached),
        mock.patch.object(evaluation, "build_personalization_evaluation", build_cached),
        mock.patch.object(runtime, "execution_context", return_value=contextlib.nullcontext(worker)),
    ):
        yield
