"""An experiment's configuration: one dataclass, from which the flags are made."""

import dataclasses
import hashlib
import json
import os
import typing
from collections.abc import Mapping
from typing import Any

from absl import flags

from tff_personalization import aggregators, errors, identity, methods, optimizers, schedules
from tff_personalization.algorithms import client_work
from tff_personalization.personalization import evaluation, strategies
from tff_personalization.programs import runtime
from tff_personalization.tasks import registry, sources

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


def _setting(theme: str, default: Any, help_text: str, **checks: Any) -> Any:
    """A field with the theme and help of its flag, and what its value must be (`choices`, `least`, `most`)."""
    metadata = {"theme": theme, "help": help_text, **checks}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _listing(help_text: str, choices: Mapping[str, Any]) -> str:
    """A flag's help with what each of its choices is."""
    return f"{help_text} {'; '.join(f'{name}: {choice.description}' for name, choice in choices.items())}."


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Every setting of a run besides the optimizers; a flag of the same name exists for each field.

    None means: decided from other settings, as the help says.
    """

    task: str = _setting("data", "emnist62", "What is learnt.", choices=tuple(registry.TASKS))
    client_data: str = _setting(
        "data",
        "handwriting",
        "Where the clients come from: handwriting (synthetic, generated), digits (scikit-learn), tff (Federated "
        "EMNIST), or the path of a by-writer .npz archive or an SQLite file in TFF's schema.",
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
        _listing("How the global model is trained.", {name: methods.get(name) for name in methods.METHODS}),
        choices=tuple(methods.METHODS),
    )
    model: str = _setting("training", "cnn", "The network.", choices=tuple(registry.EMNIST_MODELS))
    rounds: int = _setting("training", 500, "Rounds of training.", least=0)
    clients_per_round: int = _setting("training", 20, "Clients in a cohort.", least=1)
    local_epochs: int = _setting("training", 10, "E of FedAvg(E): a client's passes over its data in a round.", least=1)
    local_steps: int = _setting("training", 10, "K of Reptile(K): a client's steps in a round.", least=1)
    batch_size: int = _setting("training", 20, "Examples in a training step.", least=1)
    client_weighting: str = _setting(
        "training", "examples", "What weighs a client's model delta.", choices=client_work.WEIGHTINGS
    )
    proximal_strength: float = _setting(
        "training", 0.1, "μ of fed_prox: how strongly local training is pulled to the global model.", least=0
    )
    aggregator: str = _setting(
        "training",
        "mean",
        _listing("How the model deltas of a cohort become one.", aggregators.AGGREGATORS),
        choices=tuple(aggregators.AGGREGATORS),
    )
    dp_noise_multiplier: float = _setting(
        "training", 1.0, "Standard deviation of the noise of --aggregator=dp, in units of the clipping norm.", least=0
    )
    stage_2_round: int | None = _setting(
        "training",
        None,
        "First round of the second stage of personalized_fed_avg. Default: after 4/5 of the rounds.",
        least=2,
    )
    pooled_examples_per_round: int | None = _setting(
        "training", None, "Examples of a round of centralized. Default: as many as FedAvg visits on average.", least=1
    )

    strategies: list[str] = _setting(
        "personalization",
        [],
        _listing("Strategies to evaluate, the main one first. Default: the method's.", strategies.STRATEGIES),
        choices=tuple(strategies.STRATEGIES),
    )
    personalization_epochs: int = _setting(
        "personalization", 5, "Epochs of fine-tuning, evaluated after each.", least=0
    )
    personalization_batch_size: int = _setting("personalization", 20, "Examples in a step of fine-tuning.", least=1)
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

    seed: int = _setting("run", 1, "Every random choice of the run hangs on it.", least=0)
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


# Settings that a source of client data reads, by the source.
_SOURCE_READS = {"handwriting": ("num_clients", "writer_heterogeneity", "cache_dir"), "tff": ("cache_dir",)}
_READ_BY_SOME_SOURCE = frozenset(name for names in _SOURCE_READS.values() for name in names)


def _flag_type(field: dataclasses.Field) -> type:
    """The type of a setting's values, without the None of those that may be left open."""
    inner = [kind for kind in typing.get_args(field.type) if kind is not type(None)]
    return inner[0] if typing.get_origin(field.type) is not list and inner else field.type  # type: ignore[return-value]


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one flag for each setting, and the optimizers' flags."""
    for field in dataclasses.fields(ExperimentConfig):
        default = field.default_factory() if callable(field.default_factory) else field.default
        choices = field.metadata.get("choices")
        kind, text = _flag_type(field), f"[{field.metadata['theme']}] {field.metadata['help']}"
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
        else:
            text = f"{text} Of: {', '.join(choices or ())}."
            flags.DEFINE_list(field.name, default, text, flag_values=flag_values)
    for role in ROLES.values():
        optimizers.define_flags(role, flag_values)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A checked configuration with the optimizers of its roles."""

    config: ExperimentConfig
    optimizers: dict[str, optimizers.OptimizerSpec]

    def as_json(self) -> dict[str, Any]:
        """Every setting and optimizer as plain values."""
        specs = {role: dataclasses.asdict(spec) for role, spec in self.optimizers.items()}
        return {**dataclasses.asdict(self.config), "optimizers": specs}

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
    for field in dataclasses.fields(ExperimentConfig):
        _check_value(field, values[field.name])
    method = methods.get(values["method"])
    _refuse_unread(values, method, flag_values)

    if not method.trains:
        values.update(rounds=0, rounds_per_evaluation=0)
    if not values["strategies"]:
        values["strategies"] = list(method.strategies)
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
    return Experiment(ExperimentConfig(**values), specs)


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
            if item not in choices:
                raise errors.UserError(f"--{field.name}: {item!r} is unknown; choose from {', '.join(choices)}.")
        if len(set(value)) != len(value):
            raise errors.UserError(f"--{field.name}={','.join(value)}: a name stands there twice; name each once.")
    elif value is not None and least is not None and not value >= least:
        raise errors.UserError(f"--{field.name}={value}: give {least} or more.")
    elif value is not None and most is not None and not value <= most:
        raise errors.UserError(f"--{field.name}={value}: give {most} or less.")


def _refuse_unread(values: dict[str, Any], method: methods.Method, flag_values: flags.FlagValues) -> None:
    """A flag that has no effect is a mistake of the user's: refuse it by name."""
    read_by_some_method = {name for other in methods.METHODS for name in methods.get(other).reads}
    for name in sorted(read_by_some_method - set(method.reads)):
        for flag in optimizers.flag_names(ROLES[name]) if name in ROLES else (name,):
            if not flag_values[flag].using_default_value:
                raise errors.UserError(f"--{flag} has no effect with --method={values['method']}: remove it.")
    client_data = values["client_data"]
    source_reads = (
        ("cache_dir",) if sources.is_sqlite(os.path.expanduser(client_data)) else _SOURCE_READS.get(client_data, ())
    )
    for name in sorted(_READ_BY_SOME_SOURCE - set(source_reads)):
        if not flag_values[name].using_default_value:
            raise errors.UserError(f"--{name} has no effect with --client_data={values['client_data']}: remove it.")
    if not method.trains:
        for name in ("rounds", "rounds_per_evaluation"):
            if not flag_values[name].using_default_value:
                raise errors.UserError(f"--{name} has no effect with --method={values['method']}: remove it.")
