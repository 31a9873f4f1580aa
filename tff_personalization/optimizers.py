"""Named, tunable optimizers for the roles client, server and personalization, and the settings of each role.

A role is an attribute of a settings group. Its flags are, for the role `server`: `--server_optimizer`,
`--server_learning_rate` and one for each option of each optimizer, such as `--server_adam_beta_1`. Adding an optimizer
is one line in `OPTIMIZERS`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors, registries, schedules, structures
from tff_personalization.settings import OpenChoices, Part, Setting

OPTIMIZERS: OpenChoices[Callable[..., tff.learning.optimizers.Optimizer]] = OpenChoices(
    {
        "sgd": tff.learning.optimizers.build_sgdm,
        "adam": tff.learning.optimizers.build_adam,
        "adamw": tff.learning.optimizers.build_adamw,
        "adagrad": tff.learning.optimizers.build_adagrad,
        "yogi": tff.learning.optimizers.build_yogi,
        "rmsprop": tff.learning.optimizers.build_rmsprop,
    }
)


def register(name: str, builder: Callable[..., tff.learning.optimizers.Optimizer]) -> None:
    """Makes an optimizer a choice of every role. Its arguments besides `learning_rate` become flags of the role.

    Args:
        name: as in `--server_optimizer=name`. Raises UserError if it is in use.
        builder: makes the optimizer from `learning_rate` and numbers by name, each with a default. Raises UserError if
            it cannot be called with these.
    """
    try:
        inspect.signature(builder).bind(0.1)
        options = [value for key, value in inspect.signature(builder).parameters.items() if key != "learning_rate"]
    except (TypeError, ValueError) as error:
        raise errors.UserError(
            f"optimizer {name!r} is registered as {errors.described(builder)}; a function of learning_rate, and of "
            f"numbers that have defaults, is expected ({error})."
        ) from error
    for option in options:
        if option.kind is not option.KEYWORD_ONLY and option.kind is not option.POSITIONAL_OR_KEYWORD:
            raise errors.UserError(f"optimizer {name!r}: its options become flags: name {option} one by one.")
        if not isinstance(option.default, int | float | None):
            raise errors.UserError(
                f"optimizer {name!r}: the default of its option {option.name} is "
                f"{errors.described(option.default)}; a number is expected."
            )
    registries.add(OPTIMIZERS, "optimizer", name, builder)


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer by name, with its learning rate and the options that differ from TFF's defaults."""

    name: str
    learning_rate: float
    options: Mapping[str, float] = dataclasses.field(default_factory=dict)
    schedule: schedules.Schedule = schedules.Schedule()

    def build(self) -> tff.learning.optimizers.Optimizer:
        """The TFF optimizer, without its schedule.

        Raises:
            ValueError: TFF refuses a number.
            UserError: a plugin's builder gives something else, or an optimizer whose step is none.
        """
        optimizer = OPTIMIZERS[self.name](self.learning_rate, **self.options)
        if not isinstance(optimizer, tff.learning.optimizers.Optimizer):
            raise errors.UserError(
                f"optimizer {self.name!r}: its builder gives {errors.described(optimizer)}; a "
                "tff.learning.optimizers.Optimizer is expected."
            )
        if not type(optimizer).__module__.startswith("tensorflow_federated."):
            _check_step(self.name, optimizer)
        return optimizer


def _check_step(name: str, optimizer: tff.learning.optimizers.Optimizer) -> None:
    """Takes a step on made-up weights. Raises UserError unless state and weights keep their types and stay finite."""
    weights = (tf.constant([1.0, 2.0]), tf.constant([[3.0]]))
    state = optimizer.initialize(tuple(tf.TensorSpec(w.shape, w.dtype) for w in weights))
    step = optimizer.next(state, weights, tuple(0.01 * w for w in weights))
    if not (isinstance(step, tuple) and len(step) == 2):
        raise errors.UserError(
            f"optimizer {name!r}: its next gives {errors.described(step)}; (state, weights) is expected."
        )
    for what, before, after in (("state", state, step[0]), ("weights", weights, step[1])):
        structures.check_types(f"optimizer {name!r}: its next", what, before, after)
    if not structures.all_finite(step[1]):
        raise errors.UserError(f"optimizer {name!r}: its next turns small gradients into weights that are not finite.")


class NotConverted(tff.learning.optimizers.Optimizer):
    """An optimizer that AutoGraph does not convert: that takes half a second and changes nothing."""

    def __init__(self, optimizer: tff.learning.optimizers.Optimizer):
        self._optimizer = optimizer

    def initialize(self, specs: Any) -> Any:
        """The state before the first step."""
        return self._optimizer.initialize(specs)

    @tf.autograph.experimental.do_not_convert
    def next(self, state: Any, weights: Any, gradients: Any) -> Any:
        """The state and the weights after a step."""
        return self._optimizer.next(state, weights, gradients)


class Role(Part[OptimizerSpec]):
    """The purpose of an optimizer, and its defaults."""

    def __init__(
        self,
        name: str,
        purpose: str,
        default: str,
        learning_rates: Mapping[str, float],
        options: Mapping[str, float] | None = None,
        scheduled: bool = False,
    ):
        """See the class.

        Args:
            name: begins the names of its flags, such as "server".
            purpose: completes "The optimizer that …" in the flags' help.
            default: the optimizer's name.
            learning_rates: the default learning rate of each optimizer that has one in this role.
            options: default options of the default optimizer.
            scheduled: whether the learning rate may change from round to round.
        """
        self.name = name
        self.learning_rates = learning_rates
        self.scheduled = scheduled
        self.purpose, self.default, self.options = purpose, default, options or {}

    def flags(self) -> Mapping[str, Setting[Any]]:
        """The role's flags by name: the optimizer, its learning rate and schedule, and every optimizer's options."""
        return _flags(self, tuple(OPTIMIZERS.items()))  # a plugin may add one

    def of(self, values: Mapping[str, Any], given: Collection[str] = ()) -> OptimizerSpec:
        """The optimizer that the values of the role's flags describe.

        Raises:
            UserError: a setting or the optimizer refuses a value, a flag belongs to another optimizer than the chosen
                one, or a learning rate is missing.
        """
        value = {flag: setting.of(values) for flag, setting in self.flags().items()}
        chosen = value[f"{self.name}_optimizer"]
        for name in OPTIMIZERS:
            for option in option_names(name):
                flag = f"{self.name}_{name}_{option}"
                if name != chosen and flag in given:
                    raise errors.UserError(
                        f"--{flag} has no effect with --{self.name}_optimizer={chosen}: "
                        f"remove it, or choose --{self.name}_optimizer={name}."
                    )
        rate = value[f"{self.name}_learning_rate"]
        if rate is None:
            rate = self.learning_rates.get(chosen)
        if rate is None:
            raise errors.UserError(
                f"--{self.name}_learning_rate is needed: --{self.name}_optimizer={chosen} has no default learning rate."
            )
        options = {option: value[f"{self.name}_{chosen}_{option}"] for option in option_names(chosen)}
        schedule = _schedule(self.name, value) if self.scheduled else schedules.Schedule()
        spec = OptimizerSpec(chosen, rate, {o: v for o, v in options.items() if v is not None}, schedule)
        try:
            spec.build()
        except ValueError as error:
            shown = ", ".join(f"--{self.name}_{chosen}_{option}={v:g}" for option, v in spec.options.items())
            raise errors.UserError(f"{shown}: {' '.join(str(error).split())}") from error
        return spec


CLIENT = Role("client", "takes a client's local steps", "sgd", {"sgd": 0.02, "adam": 0.002}, scheduled=True)
SERVER = Role(
    "server",
    "applies the mean model delta to the global model",
    "sgd",
    {"sgd": 1.0, "adam": 0.001},
    {"momentum": 0.9},
    scheduled=True,
)
STAGE_2_SERVER = Role("stage_2_server", "the server uses in the second stage", "adam", {"sgd": 1.0, "adam": 0.001})
BASE = Role(
    "base",
    "takes the local steps of mime_lite; the server updates its state",
    "sgd",
    {"sgd": 0.02, "adam": 0.002},
    {"momentum": 0.9},
)
PERSONALIZATION = Role(
    "personalization", "fine-tunes the global model on a client", "sgd", {"sgd": 0.02, "adam": 0.002}
)


@functools.cache
def _flags(
    role: Role, builders: tuple[tuple[str, Callable[..., tff.learning.optimizers.Optimizer]], ...]
) -> Mapping[str, Setting[Any]]:
    rates = ", ".join(f"{rate:g} for {name}" for name, rate in role.learning_rates.items())
    found: dict[str, Setting[Any]] = {
        "optimizer": Setting(role.default, f"Optimizer that {role.purpose}.", choices=OPTIMIZERS),
        "learning_rate": Setting(
            None,
            f"Learning rate of the optimizer that {role.purpose}. Default: {rates}; any other optimizer needs this "
            "flag.",
            kind=float,
            positive=True,
        ),
    }
    if role.scheduled:
        found |= _schedule_settings(role.name)
    for name, builder in builders:
        for option in option_names(name):
            default = role.options.get(option) if name == role.default else None
            if default is None:
                default = _parameters(builder)[option].default
            text = f"`{option}` of --{role.name}_optimizer={name}."
            found[f"{name}_{option}"] = Setting(default, text, kind=float)
    named = {f"{role.name}_{flag}": setting for flag, setting in found.items()}
    for flag, setting in named.items():
        setting.name, setting.theme = flag, "optimizers"
    return named


def option_names(optimizer: str) -> tuple[str, ...]:
    """The options of an optimizer besides its learning rate, as TFF's builder names them."""
    return tuple(name for name in _parameters(OPTIMIZERS[optimizer]) if name != "learning_rate")


@functools.cache
def _parameters(builder: Callable[..., tff.learning.optimizers.Optimizer]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(builder).parameters


def _schedule_settings(role: str) -> dict[str, Setting[Any]]:
    return {
        "learning_rate_schedule": Setting(
            schedules.CONSTANT,
            f"How --{role}_learning_rate changes over rounds t of T. exponential: times decay^(t−1); inverse_sqrt: "
            "times √(W/t) after W rounds of warm-up, 1/√t without; cosine: times (1 + cos(π(t−1)/T))/2.",
            choices=schedules.SCHEDULES,
        ),
        "learning_rate_decay": Setting(
            None,
            f"Decay of --{role}_learning_rate_schedule=exponential, from one round to the next.",
            kind=float,
        ),
        "learning_rate_warmup_rounds": Setting(
            0,
            f"Warm-up: --{role}_learning_rate rises in equal steps over these first rounds, with any schedule.",
            least=0,
        ),
    }


def _schedule(role: str, values: Mapping[str, Any]) -> schedules.Schedule:
    """The schedule that the values of a role's flags describe."""
    prefix = f"{role}_learning_rate"
    name, decay, warmup_rounds = (values[f"{prefix}_{part}"] for part in ("schedule", "decay", "warmup_rounds"))
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
