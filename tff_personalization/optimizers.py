"""Named, tunable optimizers for the roles client, server and personalization, and the flags of each role.

`define_flags("server", …)` makes `--server_optimizer`, `--server_learning_rate` and one flag for each option of each
optimizer, such as `--server_adam_beta_1`. Adding an optimizer is one line in `OPTIMIZERS`.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping

import tensorflow_federated as tff
from absl import flags

from tff_personalization import errors, registries, schedules

OPTIMIZERS: dict[str, Callable[..., tff.learning.optimizers.Optimizer]] = {
    "sgd": tff.learning.optimizers.build_sgdm,
    "adam": tff.learning.optimizers.build_adam,
    "adamw": tff.learning.optimizers.build_adamw,
    "adagrad": tff.learning.optimizers.build_adagrad,
    "yogi": tff.learning.optimizers.build_yogi,
    "rmsprop": tff.learning.optimizers.build_rmsprop,
}


def register(name: str, builder: Callable[..., tff.learning.optimizers.Optimizer]) -> None:
    """Makes an optimizer a choice of every role; its arguments besides `learning_rate` become flags of the role.

    Args:
        name: as in `--server_optimizer=name`. Raises UserError if it is taken.
        builder: from `learning_rate` and numbers by name, each with a default, to the optimizer.
    """
    registries.add(OPTIMIZERS, "optimizer", name, builder)


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer by name, with its learning rate and the options that differ from TFF's defaults."""

    name: str
    learning_rate: float
    options: Mapping[str, float] = dataclasses.field(default_factory=dict)
    schedule: schedules.Schedule = schedules.Schedule()

    def build(self) -> tff.learning.optimizers.Optimizer:
        """The TFF optimizer, without its schedule. Raises ValueError if TFF refuses a number."""
        return OPTIMIZERS[self.name](self.learning_rate, **self.options)


@dataclasses.dataclass(frozen=True)
class Role:
    """What an optimizer is for, and what it is unless flags say otherwise.

    Attributes:
        prefix: the flags' prefix, such as "server".
        purpose: completes "The optimizer that …" in the flags' help.
        default: the optimizer's name.
        learning_rates: the default learning rate of each optimizer that has one in this role.
        options: default options of the default optimizer.
        scheduled: whether the learning rate may change from round to round.
    """

    prefix: str
    purpose: str
    default: str
    learning_rates: Mapping[str, float]
    options: Mapping[str, float] = dataclasses.field(default_factory=dict)
    scheduled: bool = False


def option_names(optimizer: str) -> tuple[str, ...]:
    """The options of an optimizer besides its learning rate, as TFF's builder names them."""
    return tuple(name for name in inspect.signature(OPTIMIZERS[optimizer]).parameters if name != "learning_rate")


def flag_names(role: Role) -> tuple[str, ...]:
    """The names of every flag of a role."""
    options = (f"{role.prefix}_{name}_{option}" for name in OPTIMIZERS for option in option_names(name))
    schedule = (f"{role.prefix}_learning_rate_{part}" for part in ("schedule", "decay", "warmup_rounds"))
    return (
        f"{role.prefix}_optimizer",
        f"{role.prefix}_learning_rate",
        *(schedule if role.scheduled else ()),
        *options,
    )


def define_flags(role: Role, flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of a role."""
    rates = ", ".join(f"{rate:g} for {name}" for name, rate in role.learning_rates.items())
    flags.DEFINE_enum(
        f"{role.prefix}_optimizer",
        role.default,
        list(OPTIMIZERS),
        f"The optimizer that {role.purpose}.",
        flag_values=flag_values,
    )
    flags.DEFINE_float(
        f"{role.prefix}_learning_rate",
        None,
        f"Learning rate of the optimizer that {role.purpose}. Default: {rates}; others must be given.",
        flag_values=flag_values,
    )
    if role.scheduled:
        _define_schedule_flags(role, flag_values)
    for name, builder in OPTIMIZERS.items():
        for option in option_names(name):
            default = role.options.get(option) if name == role.default else None
            if default is None:
                default = inspect.signature(builder).parameters[option].default
            flags.DEFINE_float(
                f"{role.prefix}_{name}_{option}",
                default,
                f"`{option}` of --{role.prefix}_optimizer={name}.",
                flag_values=flag_values,
            )


def _define_schedule_flags(role: Role, flag_values: flags.FlagValues) -> None:
    flags.DEFINE_enum(
        f"{role.prefix}_learning_rate_schedule",
        schedules.CONSTANT,
        list(schedules.SCHEDULES),
        f"How --{role.prefix}_learning_rate changes over rounds t of T. exponential: times decay^(t−1); inverse_sqrt: "
        "times √(W/t) after W rounds of warm-up, 1/√t without; cosine: times (1 + cos(π(t−1)/T))/2.",
        flag_values=flag_values,
    )
    flags.DEFINE_float(
        f"{role.prefix}_learning_rate_decay",
        None,
        f"The decay of --{role.prefix}_learning_rate_schedule=exponential, from a round to the next.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        f"{role.prefix}_learning_rate_warmup_rounds",
        0,
        f"Rounds over which --{role.prefix}_learning_rate rises in equal steps, with any schedule.",
        flag_values=flag_values,
        lower_bound=0,
    )


def _schedule_from_flags(role: Role, flag_values: flags.FlagValues) -> schedules.Schedule:
    if not role.scheduled:
        return schedules.Schedule()
    prefix = f"{role.prefix}_learning_rate"
    name, decay, warmup_rounds = (
        flag_values[f"{prefix}_{part}"].value for part in ("schedule", "decay", "warmup_rounds")
    )
    if name != "exponential" and decay is not None:
        raise errors.UserError(
            f"--{prefix}_decay has no effect with --{prefix}_schedule={name}: remove it, or choose "
            f"--{prefix}_schedule=exponential."
        )
    if name == "exponential" and not (decay is not None and 0 < decay <= 1):
        given = " is needed" if decay is None else f"={decay:g}"
        raise errors.UserError(
            f"--{prefix}_decay{given}: --{prefix}_schedule=exponential takes a number in (0, 1], such as 0.99."
        )
    return schedules.Schedule(name, 1.0 if decay is None else decay, warmup_rounds)


def from_flags(role: Role, flag_values: flags.FlagValues = flags.FLAGS) -> OptimizerSpec:
    """The optimizer that the flags of a role describe.

    Raises:
        UserError: a flag of an optimizer that was not chosen is given, a learning rate is missing, or a number is one
            that the optimizer does not take.
    """
    chosen = flag_values[f"{role.prefix}_optimizer"].value
    for name in OPTIMIZERS:
        for option in option_names(name):
            flag = f"{role.prefix}_{name}_{option}"
            if name != chosen and not flag_values[flag].using_default_value:
                raise errors.UserError(
                    f"--{flag} has no effect with --{role.prefix}_optimizer={chosen}: "
                    f"remove it, or choose --{role.prefix}_optimizer={name}."
                )
    rate = flag_values[f"{role.prefix}_learning_rate"].value
    if rate is None:
        rate = role.learning_rates.get(chosen)
    if rate is None:
        raise errors.UserError(
            f"--{role.prefix}_learning_rate is needed: --{role.prefix}_optimizer={chosen} has no default learning rate."
        )
    if not (math.isfinite(rate) and rate > 0):
        raise errors.UserError(f"--{role.prefix}_learning_rate={rate:g}: give a positive, finite number.")
    values = {option: flag_values[f"{role.prefix}_{chosen}_{option}"].value for option in option_names(chosen)}
    given_options = {option: value for option, value in values.items() if value is not None}
    spec = OptimizerSpec(chosen, rate, given_options, _schedule_from_flags(role, flag_values))
    try:
        spec.build()
    except ValueError as error:
        given = ", ".join(f"--{role.prefix}_{chosen}_{option}={value:g}" for option, value in spec.options.items())
        raise errors.UserError(f"{given}: {' '.join(str(error).split())}") from error
    return spec
