"""From flags to a checked experiment."""

import copy
import dataclasses
import functools
import hashlib
import json
import math
import os
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags

from tff_personalization import aggregators, errors, identity, methods, optimizers, plugins, schedules
from tff_personalization.experiment import settings as settings_lib
from tff_personalization.personalization import strategies
from tff_personalization.tasks import partitions, registry

_READ_BY_SOME_SOURCE = frozenset(
    name for task in registry.TASKS.values() for names in task.sources.reads.values() for name in names
)

_READ_BY_EVALUATIONS = ("evaluation_clients", "target_accuracy")  # between rounds
_READ_BETWEEN_ROUNDS = ("rounds_per_evaluation", *_READ_BY_EVALUATIONS, "rounds_per_checkpoint", "rounds_per_model")


def _flag_type(field: dataclasses.Field) -> type:
    """The type of a setting's values, without the None of those that may be left open."""
    inner = [kind for kind in typing.get_args(field.type) if kind is not type(None)]
    return inner[0] if typing.get_origin(field.type) is not list and inner else field.type  # type: ignore[return-value]


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one flag for each setting, the optimizers' flags, and those of a sweep.

    Raises:
        UserError: a plugin has defined a flag of such a name, or registered what reads a flag that does not exist.
    """
    roles = {name for role in settings_lib.ROLES.values() for name in optimizers.flag_names(role)}
    for name in plugins.flag_names():
        if name in roles or name in settings_lib.ExperimentConfig.__dataclass_fields__:
            raise errors.UserError(f"--plugin: it defines the flag --{name}, which exists already: rename it.")
        if name not in flag_values:  # not those that the plugin defined its flag in
            flag_values[name] = copy.deepcopy(flags.FLAGS[name])
            flag_values[name].unparse()
    defaults = settings_lib.defaults()
    for field in dataclasses.fields(settings_lib.ExperimentConfig):
        default = defaults[field.name]
        choices = field.metadata.get("choices")
        kind, described = _flag_type(field), field.metadata["help"]
        text = f"[{field.metadata['theme']}] {described() if callable(described) else described}"
        if kind is int:
            flags.DEFINE_integer(field.name, default, text, flag_values=flag_values)
        elif kind is float:
            flags.DEFINE_float(field.name, default, text, flag_values=flag_values)
        elif kind is bool:
            flags.DEFINE_bool(field.name, default, text, flag_values=flag_values)
        elif kind is str and choices:
            flags.DEFINE_enum(field.name, default, list(choices), text, flag_values=flag_values)
        elif kind is str:
            flags.DEFINE_string(field.name, default, text, flag_values=flag_values)
        elif choices or "item" in field.metadata:
            text = f"{text} Of: {', '.join(choices)}." if choices else text
            flags.DEFINE_list(field.name, default, text, flag_values=flag_values)
        else:
            flags.DEFINE_multi_string(field.name, default, text, flag_values=flag_values)
    for role in settings_lib.ROLES.values():
        optimizers.define_flags(role, flag_values)
    # Not settings of a run:
    text = "[run] A TOML file of flags for many runs (docs/sweeps.md)."
    flags.DEFINE_string("sweep", "", text, flag_values=flag_values)
    text = "[run] The size of a sweep whose file has several, such as small: the [scale.small] in it."
    flags.DEFINE_string("scale", "", text, flag_values=flag_values)
    text = "[run] Runs of a sweep that are made at the same time, each with its share of the cores."
    flags.DEFINE_integer("sweep_runs_at_once", 1, text, lower_bound=1, flag_values=flag_values)
    text = "[run] End a sweep with the first run that fails."
    flags.DEFINE_bool("sweep_stop_on_failure", False, text, flag_values=flag_values)
    for chooser, choices in settings_lib.reads().items():
        for name, read in choices.items():
            for flag in sorted(read):
                if flag not in settings_lib.ROLES and flag not in flag_values and flag not in plugins.flag_names():
                    raise errors.UserError(f"--plugin: {name!r} of --{chooser} reads --{flag}, which is no flag.")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A checked configuration with the optimizers of its roles.

    Attributes:
        config: the program's own settings.
        optimizers: the optimizer of each role that the method has.
        plugin_settings: the values of the flags that plugins define.
        plugins: the SHA-256 of each plugin's source, by the plugin's name.
        given: the values of the flags that were not left at their defaults, by name.
    """

    config: settings_lib.ExperimentConfig
    optimizers: dict[str, optimizers.OptimizerSpec]
    plugin_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    plugins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The value of every flag besides the optimizers', by name."""
        return {**dataclasses.asdict(self.config), **self.plugin_settings}

    def as_json(self) -> dict[str, Any]:
        """Every setting and optimizer as plain values, and the source of each plugin as its hash."""
        specs = {role: dataclasses.asdict(spec) for role, spec in self.optimizers.items()}
        return {**self.settings, "optimizers": specs, "plugin_sources": dict(self.plugins)}

    def run_name(self) -> str:
        """The name of the run directory: the one given, or one that differs whenever a number could differ."""
        if self.config.run_name:
            return self.config.run_name
        settings = identity.of(self.as_json(), settings_lib.defaults())
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        data = self.config.client_data.replace("\\", "/").rsplit("/", 1)[-1].split(".")[0]
        return f"{self.config.method}-{data}-seed{self.config.seed}-{digest}"


def from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Experiment:
    """The experiment that the flags describe.

    Raises:
        UserError: a value is out of range, two do not fit together, or a flag is given that nothing would read.
    """
    values = {field.name: flag_values[field.name].value for field in dataclasses.fields(settings_lib.ExperimentConfig)}
    values["plugin"] = plugins.split(values["plugin"])
    for field in dataclasses.fields(settings_lib.ExperimentConfig):
        if "item" in field.metadata:
            values[field.name] = [_item(field, text) for text in values[field.name]]
        _check_value(field, values[field.name])
    _choose_by_task(values)
    method = methods.get(values["method"])
    values["strategies"] = values["strategies"] or list(method.strategies)
    for name in values["strategies"]:
        strategy = strategies.STRATEGIES[name]
        if strategy.one_label and not _one_label(values["task"], values["model"]):
            raise errors.UserError(
                f"--strategies: {name} is for models with one label an example; --model={values['model']} predicts one "
                "at each place of it: leave it out."
            )
        needed = strategy.needs
        if needed not in ("", method.provides):
            makers = ", ".join(other for other in methods.METHODS if methods.get(other).provides == needed)
            raise errors.UserError(
                f"--strategies: {name} needs {needed}, which --method={values['method']} does not train: "
                f"leave it out, or choose one of --method={makers}."
            )
    _refuse_unread(values, method, flag_values)
    method.check(values)
    if not values["straggler_probability"] and not flag_values["straggler_step_fraction"].using_default_value:
        raise errors.UserError(
            "--straggler_step_fraction has no effect without stragglers: give --straggler_probability, or remove it."
        )
    if values["run_name"] and (set(values["run_name"]) & {"/", "\\", "\0"} or values["run_name"] in (".", "..")):
        raise errors.UserError(
            f"--run_name={values['run_name']!r}: is the name of a directory in --output_dir: give one without slashes."
        )
    for name in ("cores", "threads_per_client"):
        if values["workers"] and not flag_values[name].using_default_value:
            raise errors.UserError(
                f"--{name} has no effect with --workers, each of which has its own: remove it, or start them with it."
            )
    if values["personalization_learning_rates"] and not values["validation_clients"]:
        raise errors.UserError(
            "--personalization_learning_rates: the rate is chosen on validation clients; give --validation_clients, or "
            "one --personalization_learning_rate."
        )

    if not method.trains:
        values.update(rounds=0, rounds_per_evaluation=0)
    if "aggregator" in method.reads and not aggregators.AGGREGATORS[values["aggregator"]].weighted:
        values["client_weighting"] = "uniform"
    if "stage_2_round" in method.reads:
        share, given_round = values["stage_1_share"], values["stage_2_round"]
        if values["stage_2_round"] is None:
            values["stage_2_round"] = max(2, round((0.8 if share is None else share) * values["rounds"]) + 1)
        elif share is not None:
            raise errors.UserError(
                f"--stage_1_share={share:g} and --stage_2_round={values['stage_2_round']} both say when the second "
                "stage begins: keep one."
            )
        values["stage_1_share"] = None  # the round says it
        if values["stage_2_round"] > values["rounds"]:
            after = f"comes after the last round (--rounds={values['rounds']})"
            if given_round is not None:
                raise errors.UserError(f"--stage_2_round={given_round} {after}: give a smaller one.")
            whose = "" if share is None else f"--stage_1_share={share:g}: "
            raise errors.UserError(
                f"{whose}the second stage of --method={values['method']} {after}: give more --rounds, or a smaller "
                "--stage_1_share."
            )
    roles = [name for name in settings_lib.ROLES if name in method.reads or name == "personalization"]
    specs = {name: optimizers.from_flags(settings_lib.ROLES[name], flag_values) for name in roles}
    _check_client_optimizer(values["method"], method, specs)
    plugin_settings = {name: flag_values[name].value for name in plugins.flag_names()}
    return Experiment(
        settings_lib.ExperimentConfig(**values), specs, plugin_settings, plugins.sources(), given(flag_values)
    )


def argument(name: str, value: Any) -> str:
    """A flag with its value, as the command line has it."""
    return f"--{name}={text(value)}"


def text(value: Any) -> str:
    """A flag's value as the command line has it."""
    if isinstance(value, list):
        return ",".join(map(text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def given(flag_values: flags.FlagValues) -> dict[str, Any]:
    """The flags of a run that are not at their defaults, with their values."""
    names = [field.name for field in dataclasses.fields(settings_lib.ExperimentConfig)]
    names += [name for role in settings_lib.ROLES.values() for name in optimizers.flag_names(role)]
    names += plugins.flag_names()
    return {name: flag_values[name].value for name in names if not flag_values[name].using_default_value}


@functools.cache
def _one_label(task: str, model: str) -> bool:
    """Whether an example has one label, as the model itself says."""
    chosen = registry.TASKS[task]
    _, labels = chosen.models[model](chosen.num_classes, np.random.default_rng(0)).input_spec
    return labels.shape.rank == 1


def _item(field: dataclasses.Field, text: Any) -> Any:
    make, expected = field.metadata["item"]
    try:
        return make(str(text))
    except ValueError:
        raise errors.UserError(f"--{field.name}: {text!r} is not {expected}.") from None


def _check_client_optimizer(name: str, method: methods.Method, specs: Mapping[str, optimizers.OptimizerSpec]) -> None:
    client = specs.get("client")
    if method.plain_sgd and client and (client.name != "sgd" or client.options.get("momentum")):
        raise errors.UserError(
            f"--method={name} is defined for clients that take plain SGD steps: choose --client_optimizer=sgd without "
            "momentum."
        )
    if method.pooled and client and client.schedule != schedules.Schedule():
        raise errors.UserError(
            f"--client_learning_rate_schedule and its warm-up have no effect with --method={name}, which keeps one "
            "optimizer for all rounds: remove them."
        )


def _check_value(field: dataclasses.Field, value: Any) -> None:
    least, most = field.metadata.get("least"), field.metadata.get("most")
    choices = field.metadata.get("choices") or ()
    if isinstance(value, list):
        for item in value:
            if choices and item not in choices:
                raise errors.UserError(f"--{field.name}: {item!r} is unknown; choose from {', '.join(choices)}.")
        if len(set(value)) != len(value):
            raise errors.UserError(
                f"--{field.name}={','.join(map(str, value))}: something stands there twice; give each once."
            )
    elif field.metadata.get("positive") and not (math.isfinite(value) and value > 0):
        raise errors.UserError(f"--{field.name}={value}: give a positive, finite number.")
    elif value is not None and least is not None and not value >= least:
        raise errors.UserError(f"--{field.name}={value}: give {least} or more.")
    elif value is not None and most is not None and not value <= most:
        raise errors.UserError(f"--{field.name}={value}: give {most} or less.")


def _choose_by_task(values: dict[str, Any]) -> None:
    """Fills in the client data and the model of the task; refuses those of another task."""
    task = registry.TASKS[values["task"]]
    if values["client_data"] is None:
        values["client_data"] = task.sources.default
    of_other_tasks = {name for other in registry.TASKS.values() for name in other.sources.named}
    if values["client_data"] in of_other_tasks - task.sources.named.keys():
        raise errors.UserError(
            f"--client_data={values['client_data']} is not for --task={values['task']}: use {task.sources.choices}."
        )
    if values["model"] is None:
        values["model"] = next(iter(task.models))
    if values["model"] not in task.models:
        raise errors.UserError(
            f"--model={values['model']} is not for --task={values['task']}: use {' or '.join(task.models)}."
        )


def _refuse_unread(values: dict[str, Any], method: methods.Method, flag_values: flags.FlagValues) -> None:
    """A flag that has no effect is a mistake of the user's: refuse it by name."""

    def given(name: str) -> str | None:
        names = optimizers.flag_names(settings_lib.ROLES[name]) if name in settings_lib.ROLES else (name,)
        return next((flag for flag in names if not flag_values[flag].using_default_value), None)

    aggregator = aggregators.AGGREGATORS[values["aggregator"]] if "aggregator" in method.reads else None
    reads = settings_lib.reads()
    read = reads["method"][values["method"]].union(*(reads["strategies"][name] for name in values["strategies"]))
    if aggregator:
        read |= reads["aggregator"][values["aggregator"]]
    # What a strategy could read is its to refuse: a method may read it too.
    for chooser in ("strategies", "method", "aggregator"):
        for name in sorted(frozenset().union(*reads[chooser].values()) - read):
            if flag := given(name):
                shown = "method" if chooser == "aggregator" and not aggregator else chooser
                value = ",".join(values[shown]) if shown == "strategies" else values[shown]
                raise errors.UserError(f"--{flag} has no effect with --{shown}={value}: remove it.")
    if aggregator and not aggregator.weighted and values["client_weighting"] != "uniform" and given("client_weighting"):
        raise errors.UserError(
            f"--client_weighting={values['client_weighting']} has no effect with --aggregator={values['aggregator']}, "
            "whose mean is unweighted: remove it."
        )
    catalogue = registry.TASKS[values["task"]].sources
    source_reads = catalogue.settings_read(os.path.expanduser(values["client_data"]))
    for name in sorted(_READ_BY_SOME_SOURCE - set(source_reads)):
        if not flag_values[name].using_default_value:
            raise errors.UserError(f"--{name} has no effect with --client_data={values['client_data']}: remove it.")
    partition = values["partition"]
    unread = {name for names in partitions.READS.values() for name in names} - {*partitions.READS.get(partition, ())}
    for name in sorted(unread | ({"partition_clients"} if partition == partitions.NATURAL else set())):
        if given(name):
            raise errors.UserError(f"--{name} has no effect with --partition={partition}: remove it.")
    if partition != partitions.NATURAL and given("deal_examples_at_random"):
        raise errors.UserError(
            f"--deal_examples_at_random has no effect with --partition={partition}, which deals them: keep one."
        )
    if not method.trains:
        for name in ("rounds", *_READ_BETWEEN_ROUNDS, "rounds_from"):
            if given(name):
                raise errors.UserError(f"--{name} has no effect with --method={values['method']}: remove it.")
    if not values["rounds_per_evaluation"]:
        for name in _READ_BY_EVALUATIONS:
            if given(name):
                raise errors.UserError(f"--{name} has no effect with --rounds_per_evaluation=0: remove it.")
