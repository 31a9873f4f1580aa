"""An experiment's configuration: one dataclass, from which the flags are made."""

import dataclasses
import hashlib
import json
import math
import os
import typing
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from tff_personalization import aggregators, errors, identity, methods, optimizers, plugins, schedules
from tff_personalization.algorithms import client_work
from tff_personalization.personalization import evaluation, strategies
from tff_personalization.programs import runtime
from tff_personalization.tasks import registry

ROLES = {
    role.prefix: role
    for role in (
        optimizers.Role("client", "takes a client's local steps", "sgd", {"sgd": 0.02, "adam": 0.002}, scheduled=True),
        optimizers.Role(
            "server",
            "applies the mean model delta to the global model",
            "sgd",
            {"sgd": 1.0, "adam": 0.001},
            {"momentum": 0.9},
            scheduled=True,
        ),
        optimizers.Role("stage_2_server", "is the server's in the second stage", "adam", {"sgd": 1.0, "adam": 0.001}),
        optimizers.Role(
            "base",
            "takes the local steps of mime_lite, its state the server's",
            "sgd",
            {"sgd": 0.02, "adam": 0.002},
            {"momentum": 0.9},
        ),
        optimizers.Role(
            "personalization", "fine-tunes the global model on a client", "sgd", {"sgd": 0.02, "adam": 0.002}
        ),
    )
}


def _setting(theme: str, default: Any, help_text: str | Callable[[], str], **checks: Any) -> Any:
    """A field with the theme and help of its flag, and what its value must be.

    `choices`; `least`, `most`; `positive`: above 0 and finite; `item`: what makes an item of a list from its text, or
    raises ValueError, and what it takes, in words. Choices are the registry itself, and their help a function: a plugin
    may add to them before flags are defined.
    """
    metadata = {"theme": theme, "help": help_text, **checks}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _learning_rate(text: str) -> float:
    rate = float(text)
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError
    return rate


def _number_of_examples(text: str) -> str:
    if text != "all" and int(text) < 0:
        raise ValueError
    return text if text == "all" else str(int(text))


def _methods() -> dict[str, methods.Method]:
    return {name: methods.get(name) for name in methods.METHODS}


def _reads() -> dict[str, dict[str, frozenset[str]]]:
    """What each choice reads of the flags that not all read, by the flag that chooses and the choice's name."""
    return {
        "method": {name: frozenset(method.reads) for name, method in _methods().items()},
        "aggregator": {name: frozenset(choice.reads) for name, choice in aggregators.AGGREGATORS.items()},
        "strategies": {name: strategy.flags for name, strategy in strategies.STRATEGIES.items()},
    }


def _listing(help_text: str, choices: Callable[[], Mapping[str, Any]]) -> Callable[[], str]:
    """A flag's help with what each of its choices is."""
    return lambda: f"{help_text} {'; '.join(f'{name}: {choice.description}' for name, choice in choices().items())}."


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Every setting of a run besides the optimizers; a flag of the same name exists for each field.

    None means: decided from other settings, as the help says.
    """

    task: str = _setting("data", "emnist62", "What is learnt.", choices=tuple(registry.TASKS))
    client_data: str = _setting(
        "data",
        None,
        "Where the clients come from. For emnist62 and emnist10: handwriting (synthetic, generated; the default), "
        "digits (scikit-learn), tff (Federated EMNIST), or the path of a by-writer .npz archive or an SQLite file in "
        "TFF's schema. For shakespeare: plays (the roles of his plays; the default), tff, or an SQLite file's path.",
    )
    cache_dir: str | None = _setting(
        "data",
        None,
        "Where generated, downloaded and read data is kept. Default: TFF's ~/.tff for tff, else the user's cache.",
    )
    num_clients: int = _setting("data", 120, "How many writers --client_data=handwriting generates.", least=2)
    writer_heterogeneity: float = _setting(
        "data", 1.0, "How differently generated writers write: 0, all alike, and upward.", least=0
    )
    deal_examples_at_random: bool = _setting(
        "data", False, "Deal all examples to the clients at random, so that no client has a style: a control."
    )
    train_clients: int | None = _setting(
        "data", None, "Clients that train. Default: all that are not held out.", least=1
    )
    validation_clients: int = _setting("data", 0, "Held-out clients that validate instead of testing.", least=0)
    test_clients: int | None = _setting("data", None, "Clients held out. Default: 900 of 3,400.", least=1)

    method: str = _setting(
        "training",
        "fed_avg",
        _listing("How the global model is trained.", _methods),
        choices=methods.METHODS,
    )
    model: str = _setting(
        "training", None, "The network. Default: cnn, and char_lstm for shakespeare.", choices=registry.MODELS
    )
    rounds: int = _setting("training", 500, "Rounds of training.", least=0)
    clients_per_round: int = _setting("training", 20, "Clients in a cohort.", least=1)
    local_epochs: int = _setting("training", 10, "E of FedAvg(E): a client's passes over its data in a round.", least=1)
    head_epochs: int = _setting(
        "training", 10, "Epochs that train a client's head alone, before the rest is trained.", least=0
    )
    local_steps: int = _setting(
        "training", 10, "K of Reptile(K) and of meta-learning: a client's steps in a round.", least=1
    )
    batch_size: int = _setting("training", 20, "Examples in a training step.", least=1)
    client_weighting: str = _setting(
        "training",
        "examples",
        "What weighs a client's model delta. With --aggregator=dp, whose mean is unweighted, always uniform.",
        choices=client_work.WEIGHTINGS,
    )
    proximal_strength: float = _setting(
        "training", 0.1, "μ of fed_prox: how strongly local training is pulled to the global model.", least=0
    )
    aggregator: str = _setting(
        "training",
        "mean",
        _listing("How the model deltas of a cohort become one.", lambda: aggregators.AGGREGATORS),
        choices=aggregators.AGGREGATORS,
    )
    dp_noise_multiplier: float = _setting(
        "training", 1.0, "Standard deviation of the noise of --aggregator=dp, in units of the clipping norm.", least=0
    )
    query_fraction: float = _setting(
        "training",
        0.5,
        "Share of a client's examples, drawn anew each round, that fomaml, maml and meta_sgd judge the adapted model "
        "on; they adapt it to the others. Each part gets one at least; with 0, or a single example, both get all.",
        least=0,
        most=1,
    )
    inner_learning_rate: float = _setting(
        "training",
        0.02,
        "Learning rate of per_fed_avg's inner step, and of each weight in meta_sgd before it learns better ones.",
        least=1e-6,
    )
    hessian_delta: float = _setting(
        "training",
        0.001,
        "δ of the difference of gradients that is per_fed_avg's product with the Hessian (HF); 0 leaves it out (FO).",
        least=0,
    )
    dp_delta: float | None = _setting(
        "training",
        None,
        "δ of the (ε, δ) that is reported with --aggregator=dp. Default: N^-1.1 for N train clients.",
        least=1e-300,
        most=1,
    )
    stage_2_round: int | None = _setting(
        "training",
        None,
        "First round of the second stage of personalized_fed_avg. Default: after 4/5 of the rounds.",
        least=2,
    )
    clusters: int = _setting("training", 3, "k of ifca: the models, one a cluster.", least=1)
    pooled_examples_per_round: int | None = _setting(
        "training", None, "Examples of a round of centralized. Default: as many as FedAvg visits on average.", least=1
    )

    strategies: list[str] = _setting(
        "personalization",
        [],
        _listing("Strategies to evaluate, the main one first. Default: the method's.", lambda: strategies.STRATEGIES),
        choices=strategies.STRATEGIES,
    )
    personalization_epochs: int = _setting(
        "personalization", 5, "Epochs of fine-tuning, evaluated after each.", least=0
    )
    personalization_batch_size: int = _setting("personalization", 20, "Examples in a step of fine-tuning.", least=1)
    personalization_learning_rates: list[float] = _setting(
        "personalization",
        [],
        "Learning rates of the personalization optimizer, one of which is chosen on the validation clients, with the "
        "strategy and the epoch, such as 0.005,0.02,0.1. Default: --personalization_learning_rate alone.",
        item=(_learning_rate, "a positive, finite number"),
    )
    personalization_examples: list[str] = _setting(
        "personalization",
        [],
        "Evaluate in the end also with the train part of each test client cut to so many examples, drawn at random and "
        "the fewer among the more, such as 0,1,5,20,all. Default: with all alone.",
        item=(_number_of_examples, "a number of examples, or all"),
    )
    fine_tune_adam_learning_rate: float = _setting(
        "personalization", 0.002, "Learning rate of --strategies=fine_tune_adam.", positive=True
    )
    early_stopping_fraction: float = _setting(
        "personalization",
        0.2,
        "Share of its train part that a client holds back with --strategies=fine_tune_early_stopping.",
        least=0.01,
        most=0.9,
    )
    ditto_lambda: float = _setting(
        "personalization", 1.0, "λ, how strongly --strategies=ditto is pulled back to the global model.", least=0
    )
    p_fed_me_lambda: float = _setting(
        "personalization", 15.0, "λ, how strongly --strategies=p_fed_me is pulled back to the global model.", least=0
    )
    p_fed_me_steps: int = _setting("personalization", 5, "K, the steps of p_fed_me's inner problem.", least=1)
    p_fed_me_learning_rate: float = _setting(
        "personalization",
        0.02,
        "η of --strategies=p_fed_me: after a batch the model that it is pulled back to goes ηλ of the way to its own.",
        positive=True,
    )
    apfl_alpha: float = _setting(
        "personalization", 0.5, "α, the share of the local model in --strategies=apfl's mixture.", least=0, most=1
    )
    apfl_learn_alpha: bool = _setting(
        "personalization", True, "Let each client learn its α from --apfl_alpha on, on its train part."
    )
    knn_neighbours: int = _setting(
        "personalization", 10, "k, the train examples that vote in --strategies=knn_per.", least=1
    )
    knn_lambda: float = _setting(
        "personalization", 0.5, "λ, the share of the vote in the probabilities of knn_per.", least=0, most=1
    )
    evaluation_release: str = _setting(
        "personalization",
        "records",
        "What clients release: per-client records, or sums alone.",
        choices=evaluation.RELEASES,
    )
    rounds_per_evaluation: int = _setting(
        "personalization", 10, "Rounds between evaluations; 0: only at the end.", least=0
    )
    evaluation_clients: int = _setting(
        "personalization",
        50,
        "Clients of the evaluations between rounds: validation clients, or else a fixed sample of test clients.",
        least=1,
    )
    target_accuracy: float = _setting(
        "personalization", 0.8, "Accuracy for which the summary names the first round that reaches it.", least=0, most=1
    )

    plugin: list[str] = _setting(
        "run",
        [],
        "Your own module, by name or as the path of a .py file, that registers methods, strategies, aggregators or "
        "optimizers (docs/extending.md); several with commas, or the flag several times.",
    )
    seed: int = _setting(
        "run",
        1,
        "Every random choice of the run hangs on it, but for dp's noise and the rounding of compression.",
        least=0,
    )
    rounds_per_checkpoint: int = _setting("run", 10, "Rounds between checkpoints.", least=1)
    output_dir: str = _setting("run", "runs", "Where run directories are made.")
    run_name: str = _setting("run", "", "Name of the run directory. Default: from method, data, seed and settings.")
    cores: int = _setting("run", 0, "Clients trained at once, one core each; 0: as many as the machine gives.", least=0)
    threads_per_client: int = _setting(
        "run", 0, "Threads of one client's work; 0: one, or all cores where a round is one client.", least=0
    )
    clients_per_call: int = _setting(
        "run",
        runtime.CLIENTS_PER_CALL,
        "Clients handed to TFF's worker at once, some 20 MB of its memory each; more are worked on in parts.",
        least=1,
    )
    plots: bool = _setting("run", True, "Draw the plots of the run at its end.")


_READ_BY_SOME_SOURCE = frozenset(
    name for task in registry.TASKS.values() for names in task.sources.reads.values() for name in names
)


def _flag_type(field: dataclasses.Field) -> type:
    """The type of a setting's values, without the None of those that may be left open."""
    inner = [kind for kind in typing.get_args(field.type) if kind is not type(None)]
    return inner[0] if typing.get_origin(field.type) is not list and inner else field.type  # type: ignore[return-value]


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one flag for each setting, the optimizers' flags, and those of a sweep.

    Raises:
        UserError: a plugin has defined a flag of such a name, or registered what reads a flag that does not exist.
    """
    roles = {name for role in ROLES.values() for name in optimizers.flag_names(role)}
    for name in plugins.flag_names():
        if name in roles or name in ExperimentConfig.__dataclass_fields__:
            raise errors.UserError(f"--plugin: it defines the flag --{name}, which exists already: rename it.")
    for field in dataclasses.fields(ExperimentConfig):
        default = field.default_factory() if callable(field.default_factory) else field.default
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
    for role in ROLES.values():
        optimizers.define_flags(role, flag_values)
    # Not settings of a run:
    text = "[run] A TOML file of flags for many runs, one after another (docs/sweeps.md)."
    flags.DEFINE_string("sweep", "", text, flag_values=flag_values)
    text = "[run] End a sweep with the first run that fails."
    flags.DEFINE_bool("sweep_stop_on_failure", False, text, flag_values=flag_values)
    for chooser, choices in _reads().items():
        for name, read in choices.items():
            for flag in sorted(read):
                if flag not in ROLES and flag not in flag_values and flag not in plugins.flag_names():
                    raise errors.UserError(f"--plugin: {name!r} of --{chooser} reads --{flag}, which is no flag.")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A checked configuration with the optimizers of its roles.

    Attributes:
        config: the program's own settings.
        optimizers: the optimizer of each role that the method has.
        plugin_settings: the values of the flags that plugins define.
        plugins: the SHA-256 of each plugin's source, by the plugin's name.
    """

    config: ExperimentConfig
    optimizers: dict[str, optimizers.OptimizerSpec]
    plugin_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    plugins: Mapping[str, str] = dataclasses.field(default_factory=dict)

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
        settings = {
            name: value for name, value in self.as_json().items() if name not in identity.WITHOUT_EFFECT_ON_NUMBERS
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        data = self.config.client_data.replace("\\", "/").rsplit("/", 1)[-1].split(".")[0]
        return f"{self.config.method}-{data}-seed{self.config.seed}-{digest}"


def from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Experiment:
    """The experiment that the flags describe.

    Raises:
        UserError: a value is out of range, two do not fit together, or a flag is given that nothing would read.
    """
    values = {field.name: flag_values[field.name].value for field in dataclasses.fields(ExperimentConfig)}
    values["plugin"] = plugins.split(values["plugin"])
    for field in dataclasses.fields(ExperimentConfig):
        if "item" in field.metadata:
            values[field.name] = [_item(field, text) for text in values[field.name]]
        _check_value(field, values[field.name])
    _choose_by_task(values)
    method = methods.get(values["method"])
    values["strategies"] = values["strategies"] or list(method.strategies)
    for name in values["strategies"]:
        needed = strategies.STRATEGIES[name].needs
        if needed not in ("", method.provides):
            makers = ", ".join(other for other in methods.METHODS if methods.get(other).provides == needed)
            raise errors.UserError(
                f"--strategies: {name} needs {needed}, which --method={values['method']} does not train: "
                f"leave it out, or choose one of --method={makers}."
            )
    _refuse_unread(values, method, flag_values)
    method.check(values)
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
        if values["stage_2_round"] is None:
            values["stage_2_round"] = max(2, round(0.8 * values["rounds"]) + 1)
        if values["stage_2_round"] > values["rounds"]:
            raise errors.UserError(
                f"--stage_2_round={values['stage_2_round']} comes after the last round (--rounds={values['rounds']}): "
                "give a smaller one."
            )
    roles = [name for name in ROLES if name in method.reads or name == "personalization"]
    specs = {name: optimizers.from_flags(ROLES[name], flag_values) for name in roles}
    _check_client_optimizer(values["method"], method, specs)
    plugin_settings = {name: flag_values[name].value for name in plugins.flag_names()}
    return Experiment(ExperimentConfig(**values), specs, plugin_settings, plugins.sources())


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
        names = optimizers.flag_names(ROLES[name]) if name in ROLES else (name,)
        return next((flag for flag in names if not flag_values[flag].using_default_value), None)

    aggregator = aggregators.AGGREGATORS[values["aggregator"]] if "aggregator" in method.reads else None
    reads = _reads()
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
    if not method.trains:
        for name in ("rounds", "rounds_per_evaluation"):
            if not flag_values[name].using_default_value:
                raise errors.UserError(f"--{name} has no effect with --method={values['method']}: remove it.")
