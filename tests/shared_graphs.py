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
import tensorflow_federated as tff

from tff_personalization import methods, schedules
from tff_personalization.execution import runtime
from tff_personalization.models import keras_network
from tff_personalization.personalization import evaluation, strategies

_built: dict = {}


def _once(kind, key, build):
    """The result of `build`, made once for each key. Keeps the key: no later object gets the address of one in it."""
    identity = kind, _identity(key)
    if identity not in _built:
        _built[identity] = key, build()
    return _built[identity][1]


def _identity(value, within=()):
    """Tells values apart: arrays by all their contents, functions also by what they close over, others by `repr`."""
    if any(value is outer for outer in within):
        return "a value that holds this one"
    identity = functools.partial(_identity, within=(*within, value))
    match value:
        case np.ndarray():
            return value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()
        case types.FunctionType():
            held = [cell.cell_contents for cell in value.__closure__ or ()]
            return repr(value.__code__), identity(held), identity(value.__defaults__)
        case types.MethodType(__self__=keras_network._Network() as network):
            return value.__qualname__, network._model.to_json()
        case functools.partial():
            return identity((value.func, value.args, value.keywords))
        case types.MethodType():
            return value.__qualname__, identity(value.__self__)
        case dict() | types.MappingProxyType():
            return tuple((identity(name), identity(held)) for name, held in value.items())
        case tuple() | list():
            return type(value).__qualname__, *map(identity, value)
        case tff.learning.optimizers.Optimizer():
            return type(value).__qualname__, identity(vars(value))
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return type(value).__qualname__, identity(fields)
    return repr(value)


def _network(model):
    """The parts of a network that a graph depends on."""
    return model.stem, model.after_stem.logits, model.scoring, model.input_spec, model.initial_weights[0]


def _training(name, method, setup):
    """A method's training, from a graph for its settings, network and clients; for some schedules, also for its rounds.

    Of the clients, processes know the number, but those of pooled training hold the examples."""
    specs = [value for value in setup.settings.values.values() if hasattr(value, "schedule")]
    of_all_rounds = any(spec.schedule.name in schedules.OF_ALL_ROUNDS for spec in specs)
    if setup.settings.values.get("aggregator", "mean") != "mean":  # which may have its own settings
        return method.build(setup)
    ids = setup.train_clients
    clients = [(client, setup.train_data.examples(client)) for client in ids] if method.pooled else len(ids)
    rounds = setup.rounds if of_all_rounds else None
    key = name, setup.settings.values, _network(setup.model), clients, setup.seed, rounds
    training = _once("training", key, lambda: method.build(setup))
    return dataclasses.replace(training, cohort=setup.cohorts()) if method.trains and not method.pooled else training


def finalizers():
    """A context in which server steps with equal optimizers, on weights of one type, are one graph."""
    build = tff.learning.templates.build_apply_optimizer_finalizer

    def build_once(optimizer, weights_type):
        return _once("finalizer", (optimizer, weights_type), lambda: build(optimizer, weights_type))

    return mock.patch.object(tff.learning.templates, "build_apply_optimizer_finalizer", build_once)


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
            optimizer,
            settings,
            [own_settings(strategies.STRATEGIES[name].settings).values for name in settings["strategies"]],
            (initial_weights.name, len(initial_weights.flat)),
        )
        more = {"initial_weights": initial_weights, "own_settings": own_settings}
        return _once("evaluation", key, lambda: build(model, optimizer, **more, **settings))

    with (
        mock.patch.object(methods, "get", get_cached),
        mock.patch.object(evaluation, "build_personalization_evaluation", build_cached),
        mock.patch.object(runtime, "execution_context", return_value=contextlib.nullcontext(worker)),
    ):
        yield
