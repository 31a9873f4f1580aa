"""Turns flags into a checked experiment."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from absl import flags

from tff_personalization import aggregators, errors, identity, methods, optimizers, plugins, schedules, startup
from tff_personalization.algorithms.method import Method
from tff_personalization.experiment import settings as settings_lib
from tff_personalization.personalization import strategies
from tff_personalization.settings import Group, Setting, choose_from
from tff_personalization.tasks import federated_data, registry

G = TypeVar("G", bound=Group)

OF_SWEEPS = ("sweep", "scale", "sweep_runs_at_once", "sweep_stop_on_failure")
"""The flags of a sweep, which are not settings of its runs."""
_TAKEN = frozenset({*flags.FLAGS, "help", "helpfull", "helpshort", "helpxml", *OF_SWEEPS})
_LONGEST_NAME = 240  # of a run: file systems allow 255 bytes


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines every flag of a run, and those of a sweep.

    Raises:
        UserError: a plugin's setting has a name that is in use.
    """
    for name, setting in settings_lib.all_flags().items():
        define_flag(name, setting, flag_values)
    # OF_SWEEPS:
    text = "[run] TOML file with the flags of many runs (docs/sweeps.md)."
    flags.DEFINE_string("sweep", "", text, flag_values=flag_values)
    text = "[run] Size of the sweep, if its file has several: small reads its [scale.small]."
    flags.DEFINE_string("scale", "", text, flag_values=flag_values)
    text = "[run] Runs of the sweep made at the same time; they share the cores."
    flags.DEFINE_integer("sweep_runs_at_once", 1, text, lower_bound=1, flag_values=flag_values)
    text = "[run] Stop the sweep at the first failed run."
    flags.DEFINE_bool("sweep_stop_on_failure", False, text, flag_values=flag_values)


class _Choice(flags.EnumParser):
    """absl's parser, with an error that names the choice that was probably meant."""

    def parse(self, argument: str) -> str:
        if argument not in self.enum_values:
            raise ValueError(choose_from(self.enum_values, argument))
        return argument


def define_flag(name: str, setting: Setting[Any], flag_values: flags.FlagValues) -> None:
    """Defines the flag of a setting. UserError if absl or a sweep has a flag of this name."""
    if name in _TAKEN:
        raise errors.UserError(f"--{name} exists already: give the plugin's setting another name.")
    text, default = f"[{setting.theme}] {setting.help}", setting.default
    if setting.kind is int:
        flags.DEFINE_integer(name, default, text, flag_values=flag_values)
    elif setting.kind is float:
        flags.DEFINE_float(name, default, text, flag_values=flag_values)
    elif setting.kind is bool:
        flags.DEFINE_bool(name, default, text, flag_values=flag_values)
    elif setting.kind is str and setting.choices is not None:
        parser, text = _Choice(setting.choices), f"<{'|'.join(setting.choices)}>: {text}"
        flags.DEFINE(parser, name, default, text, flag_values, flags.ArgumentSerializer())
    elif setting.kind is str:
        flags.DEFINE_string(name, default, text, flag_values=flag_values)
    elif setting.several:
        flags.DEFINE_multi_string(name, default, text, flag_values=flag_values)
    else:
        text += f" Choices: {', '.join(setting.choices)}." if setting.choices is not None else ""
        flags.DEFINE_list(name, default, text, flag_values=flag_values)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A checked experiment.

    Attributes:
        config: the settings of every run.
        values: the value of every setting by name, including those that the run does not read.
        optimizers: the optimizer of each of the method's roles, and that of personalization.
        plugins: the SHA-256 of each plugin's source, by the plugin's name.
        given: the values of the flags that differ from their defaults, by name.
    """

    config: settings_lib.RunSettings
    values: Mapping[str, Any]
    optimizers: Mapping[str, optimizers.OptimizerSpec]
    plugins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def read(self, group: type[G]) -> G:
        """The group with this experiment's values."""
        return group(**{name: self.optimizers.get(name, self.values.get(name)) for name in group.parts()})

    @property
    def of_source(self) -> Group:
        """The values of the settings that the source of client data has of its own."""
        return self.read(registry.TASKS[self.config.task].sources.settings_of(self.config.client_data))

    def as_json(self) -> dict[str, Any]:
        """Every setting and optimizer, and the hashes of plugins' sources and of files of client ids, as JSON has them.

        Raises:
            UserError: a file of client ids cannot be read.
        """
        specs = {role: dataclasses.asdict(spec) for role, spec in self.optimizers.items()}
        found = {**self.values, "optimizers": specs, "plugin_sources": dict(self.plugins)}
        found |= {"client_ids_sha256": self.client_ids} if self.client_ids else {}
        return json.loads(json.dumps(found))

    @functools.cached_property
    def client_ids(self) -> dict[str, str]:
        """As `federated_data.client_ids_sha256`, of the files as they were when it was first asked for."""
        return federated_data.client_ids_sha256(self.config)

    def run_name(self) -> str:
        """The name of the run directory: the given one, or one that differs if any result could differ."""
        if self.config.run_name:
            return self.config.run_name
        settings = identity.of(self.as_json(), settings_lib.defaults())
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        data = self.config.client_data.replace("\\", "/").rsplit("/", 1)[-1].split(".")[0]
        return f"{self.config.method}-{data}-seed{self.config.seed}-{digest}"


def from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Experiment:
    """The experiment that the flags describe.

    Raises:
        UserError: a value is out of range, two values do not fit together, or a given flag has no effect.
    """
    of_flags = {name: flag_values[name].value for name in settings_lib.all_flags()}
    return _checked(of_flags, given(flag_values))


def from_settings(given: Mapping[str, Any]) -> Experiment:
    """The experiment that settings describe, by the names of their flags. Imports its plugins if necessary.

    Args:
        given: Python values, or text as in a flag; None leaves a default.

    Raises:
        UserError: as in `from_flags`, or a setting does not exist.
    """
    arguments = [argument(name, value) for name, value in given.items() if value is not None]
    flag_values = flags.FlagValues()
    try:
        plugins.load_again(plugins.split(_listed(given.get("plugin") or [])), {})
        define_flags(flag_values)
        if rest := flag_values(["run_experiment", *arguments])[1:]:
            raise errors.UserError(f"{rest[0]!r} is not a setting: give names of flags with their values.")
        return from_flags(flag_values)
    except flags.UnrecognizedFlagError as error:
        raise errors.UserError(startup.unknown(error, flag_values)) from error
    except flags.Error as error:
        raise errors.UserError(startup.plain(error)) from error


def _listed(value: Any) -> list[str]:
    return [str(value)] if isinstance(value, str | os.PathLike) else list(map(str, value))


def _checked(of_flags: Mapping[str, Any], given: Mapping[str, Any]) -> Experiment:
    of_flags = {**of_flags, "plugin": plugins.split(of_flags["plugin"])}
    values = {name: part.of(of_flags) for name, part in settings_lib.all_parts().items() if isinstance(part, Setting)}
    for name in ("client_data", "output_dir", *identity.CLIENT_IDS):
        if values[name] == "":
            raise errors.UserError(f"--{name} is empty: give a path, or remove the flag.")
    _choose_by_task(values, given)
    method = methods.get(values["method"])
    values["strategies"] = values["strategies"] or _by_default(values["method"], method)
    _check_strategies(values, method)
    _refuse_unread(values, method, given)
    _check_combinations(values, method, given)
    if not method.trains:
        values.update(rounds=0, rounds_per_evaluation=0)
    if "aggregator" in method.settings.parts():
        aggregator = aggregators.AGGREGATORS[values["aggregator"]]
        if method.means_only and not aggregator.mean:
            means = ", ".join(name for name, other in aggregators.AGGREGATORS.items() if other.mean)
            raise errors.UserError(
                f"--aggregator={values['aggregator']} does not make one mean per cluster, which "
                f"--method={values['method']} needs: choose one of {means}."
            )
        if not aggregator.weighted:
            values["client_weighting"] = "uniform"
    method.complete(values)
    specs = {
        name: role.of(of_flags, given)
        for name, role in settings_lib.roles().items()
        if name in method.settings.parts() or role is optimizers.PERSONALIZATION  # which every run has
    }
    _check_client_optimizer(values["method"], method, specs)
    config = settings_lib.RunSettings(**{name: values[name] for name in settings_lib.RunSettings.parts()})
    return Experiment(config, values, specs, plugins.sources(), given)


def argument(name: str, value: Any) -> str:
    """A flag with its value, as on the command line."""
    return f"--{name}={text(value)}"


def text(value: Any) -> str:
    """A flag's value, as on the command line."""
    if isinstance(value, list | tuple):
        return ",".join(map(text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def given(flag_values: flags.FlagValues) -> dict[str, Any]:
    """The flags of a run that are not at their defaults, with their values."""
    names = settings_lib.all_flags()
    return {name: flag_values[name].value for name in names if not flag_values[name].using_default_value}


def _by_default(name: str, method: Method) -> list[str]:
    """The strategies of a method unless the user names others. UserError if they are not names of strategies."""
    found = method.strategies
    names = [] if isinstance(found, str) else list(found)
    if not names or set(names) - strategies.STRATEGIES.keys():
        raise errors.UserError(
            f"--method={name}: Method has strategies={found!r}; a tuple of names of strategies is expected, such as "
            "('fine_tune',)."
        )
    return names


def _check_strategies(values: Mapping[str, Any], method: Method) -> None:
    for name in values["strategies"]:
        strategy = strategies.STRATEGIES[name]
        predicts = registry.TASKS[values["task"]].predicts
        if strategy.one_label and not predicts.one_class:
            raise errors.UserError(
                f"--strategies: {name} is for tasks with one class for each example; --task={values['task']} "
                f"predicts {predicts.words}: leave it out."
            )
        if not method.fits(strategy.needs):
            makers = ", ".join(other for other in methods.METHODS if methods.get(other).fits(strategy.needs))
            raise errors.UserError(
                f"--strategies: {name} needs {strategy.needs}, which --method={values['method']} does not train: "
                f"leave it out, or choose one of --method={makers}."
            )


def _check_combinations(values: Mapping[str, Any], method: Method, given: Collection[str]) -> None:
    """Checks that settings of every run fit together."""
    if not values["straggler_probability"] and "straggler_step_fraction" in given:
        raise errors.UserError(
            "--straggler_step_fraction has no effect without stragglers: give --straggler_probability, or remove it."
        )
    name = values["run_name"]
    if name and (set(name) & {"/", "\\", "\0"} or name in (".", "..")):
        raise errors.UserError(
            f"--run_name={name!r}: the name of a directory in --output_dir is expected: give one without slashes."
        )
    if len(name.encode(errors="surrogatepass")) > _LONGEST_NAME:
        raise errors.UserError(f"--run_name={name[:20]}…: give a name of at most {_LONGEST_NAME} bytes.")
    for flag in ("cores", "threads_per_client", "require_closed_worker"):
        if values["workers"] and flag in given:
            raise errors.UserError(
                f"--{flag} has no effect with --workers, each of which is started with its own: remove it."
            )
    metric, target = registry.TASKS[values["task"]].predicts.metric, values["target_accuracy"]
    if "target_accuracy" in given and target > metric.upper:
        raise errors.UserError(
            f"--target_accuracy={target:g}: give {metric.upper:g} or less, the largest {metric.name} of "
            f"--task={values['task']}."
        )
    if values["evaluate_on"] == "validation" and not values["validation_clients"]:
        raise errors.UserError("--evaluate_on=validation: there are no validation clients: give --validation_clients.")
    if values["personalization_learning_rates"] and values["evaluate_on"] == "validation":
        raise errors.UserError(
            "--personalization_learning_rates has no effect with --evaluate_on=validation, whose clients choose no "
            "rate: give one --personalization_learning_rate."
        )
    if values["personalization_learning_rates"] and not values["validation_clients"]:
        raise errors.UserError(
            "--personalization_learning_rates: the rate is chosen on validation clients; give --validation_clients, or "
            "one --personalization_learning_rate."
        )


def _check_client_optimizer(name: str, method: Method, specs: Mapping[str, optimizers.OptimizerSpec]) -> None:
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


def _choose_by_task(values: dict[str, Any], given: Collection[str]) -> None:
    """Fills in the task's default client data, model and target. Refuses client data and models of another task."""
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
    if "target_accuracy" not in given:
        values["target_accuracy"] = task.predicts.metric.at(values["target_accuracy"])


def _refuse_unread(values: Mapping[str, Any], method: Method, given: Collection[str]) -> None:
    """Refuses a flag that has no effect, by name: the user made a mistake."""
    chosen = settings_lib.chosen(values)
    # Strategies come first: a setting that both a strategy and a method may read is refused with --strategies.
    for chooser in settings_lib.choices():
        for flag in sorted(settings_lib.unread(chooser, values)):
            if flag in given:
                shown = "method" if chooser == "aggregator" and not chosen["aggregator"] else chooser
                raise errors.UserError(f"--{flag} has no effect with {argument(shown, values[shown])}: remove it.")
    unweighted = chosen["aggregator"] and not aggregators.AGGREGATORS[values["aggregator"]].weighted
    if unweighted and values["client_weighting"] != "uniform" and "client_weighting" in given:
        raise errors.UserError(
            f"--client_weighting={values['client_weighting']} has no effect with --aggregator={values['aggregator']}, "
            "whose mean is unweighted: remove it."
        )
    unread = []
    if (examples := values["pooled_examples_per_round"]) is not None:
        unread += [(name, f"--pooled_examples_per_round={examples}") for name in ("clients_per_round", "local_epochs")]
    if not method.trains:
        unread += [(name, f"--method={values['method']}") for name in settings_lib.Rounds.flags()]
    if not values["personalization_epochs"]:
        unread += [("participants", "--personalization_epochs=0")] if values["participants"] else []
    if not values["rounds_per_evaluation"]:
        unread += [(name, "--rounds_per_evaluation=0") for name in settings_lib.EvaluationsBetweenRounds.flags()]
    for flag, reason in unread:
        if flag in given:
            raise errors.UserError(f"--{flag} has no effect with {reason}: remove it.")
