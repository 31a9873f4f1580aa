"""Settings: typed values with a default, help and bounds, in groups beside the code that reads them.

    LOCAL_EPOCHS = Setting(10, "E of FedAvg(E): passes over a client's data in a round.", least=1)

    class Settings(Group):
        local_epochs = LOCAL_EPOCHS

    Settings(local_epochs=2).local_epochs    # 2
    Settings(local_epochs=0)                 # UserError: --local_epochs=0: give 1 or more.

Every setting is a flag of the same name. Several groups may share a setting, which is one object with one name. The
flags of the program are the union of all groups. A run reads the union of the groups of its choices.
"""

import functools
import math
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, Self, TypeVar, overload

from tff_personalization import errors

T = TypeVar("T")
Item = tuple[Callable[[str], Any], str]


class Part(Generic[T]):
    """An attribute of a group: a setting, or a value that several flags describe, such as an optimizer.

    Attributes:
        name: the attribute's name, the same in every group that has it.
    """

    name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name

    @overload
    def __get__(self, group: None, owner: type) -> Self: ...

    @overload
    def __get__(self, group: "Group", owner: type) -> T: ...

    def __get__(self, group: "Group | None", owner: type) -> Self | T:
        return self if group is None else group.values[self.name]

    def flags(self) -> "Mapping[str, Setting[Any]]":
        """Its flags, by name."""
        raise TypeError(f"{type(self).__name__} has no flags")

    def of(self, values: Mapping[str, Any], given: Collection[str] = ()) -> T:
        """Its value.

        Args:
            values: the values of its flags; flags without a value have their defaults.
            given: the flags that the user gave.

        Raises:
            UserError: a value is refused.
        """
        raise TypeError(f"{type(self).__name__} has no value")


class Setting(Part[T]):
    """A setting with one flag."""

    def __init__(
        self,
        default: T | None,
        help_text: str | Callable[[], str],
        *,
        theme: str = "training",
        kind: type[T] | None = None,
        least: float | None = None,
        most: float | None = None,
        positive: bool = False,
        choices: Iterable[str] | None = None,
        item: Item | None = None,
        several: bool = False,
    ):
        """See the class.

        Args:
            default: the default value. None: other settings decide, and the help says how.
            help_text: the flag's help; a function if plugins may change it.
            theme: the group of flags that `--help` shows it in.
            kind: int, float, bool, str or list; the default's type, unless that is None.
            least: the smallest value.
            most: the largest value.
            positive: whether the value must be above 0 and finite.
            choices: the allowed values, or items of the list; a registry itself if plugins may add to it.
            item: a function that makes an item of a list from its text, or raises ValueError; and what it accepts, in
                words.
            several: whether the flag may be given several times.
        """
        self.default = default
        self.theme = theme
        self.kind: type = kind or type(default)
        if self.kind not in (int, float, bool, str, list):
            raise TypeError(f"a setting with the default {default!r} needs a kind: int, float, bool, str or list")
        self.least, self.most, self.positive = least, most, positive
        self.choices, self.item, self.several = choices, item, several
        self._help = help_text

    @property
    def help(self) -> str:
        """A description of the setting in a few sentences."""
        return self._help() if callable(self._help) else self._help

    def flags(self) -> "Mapping[str, Setting[Any]]":
        """Its own flag."""
        return {self.name: self}

    def of(self, values: Mapping[str, Any], given: Collection[str] = ()) -> T:
        """The checked value, or the default."""
        del given
        return self.checked(values.get(self.name, self.default))

    def checked(self, value: Any) -> T:
        """The value, with the items of a list converted. Raises UserError if the setting does not allow it."""
        if self.kind is list:
            return self._checked_list(list(value))  # type: ignore[return-value]
        if value is None:
            return value  # type: ignore[return-value]  # T includes None if the default is None
        if self.positive and not (math.isfinite(value) and value > 0):
            raise errors.UserError(f"--{self.name}={value}: give a positive, finite number.")
        if self.least is not None and not value >= self.least:
            raise errors.UserError(f"--{self.name}={value}: give {self.least} or more.")
        if self.most is not None and not value <= self.most:
            raise errors.UserError(f"--{self.name}={value}: give {self.most} or less.")
        if self.choices is not None and value not in self.choices:
            raise errors.UserError(f"--{self.name}={value}: {choose_from(self.choices, value)}")
        return value

    def _checked_list(self, items: list[Any]) -> list[Any]:
        if self.item is not None:
            items = [self._converted(text) for text in items]
        for one in items:
            if self.choices is not None and one not in self.choices:
                raise errors.UserError(f"--{self.name}: {one!r} is unknown; {choose_from(self.choices, one)}")
        if len(set(items)) != len(items):
            raise errors.UserError(f"--{self.name}={','.join(map(str, items))}: a value is repeated; give each once.")
        return items

    def _converted(self, text: Any) -> Any:
        assert self.item is not None
        convert, expected = self.item
        try:
            return convert(str(text))
        except ValueError:
            raise errors.UserError(f"--{self.name}: {text!r} is not {expected}.") from None


class Group:
    """The values of some settings, as read-only attributes.

    Attributes:
        values: the values by name.
    """

    def __init__(self, **values: Any):
        """Takes values by name; other settings have their defaults.

        Raises:
            UserError: a setting does not allow its value.
            TypeError: the group has no such setting.
        """
        parts = self.parts()
        if unknown := values.keys() - parts.keys():
            raise TypeError(f"{type(self).__qualname__} has no setting {', '.join(sorted(unknown))}")
        self.values: dict[str, Any] = {
            name: values[name] if name in values and not isinstance(part, Setting) else part.of(values)
            for name, part in parts.items()
        }

    def __init_subclass__(cls) -> None:
        for name, part in vars(cls).items():
            if isinstance(part, Part) and part.name != name:
                raise errors.UserError(f"{cls.__qualname__}.{name}: it is called {part.name!r}: use this name.")
            if isinstance(part, Part) and (hasattr(Group, name) or name == "values"):
                raise errors.UserError(
                    f"{cls.__qualname__}.{name}: Group needs this name: give the setting another one."
                )

    def replace(self, **values: Any) -> Self:
        """The group with other values of some settings."""
        return type(self)(**{**self.values, **values})

    @classmethod
    @functools.cache
    def parts(cls) -> Mapping[str, Part[Any]]:
        """Its settings by name, in the order of the code, those of its base classes first."""
        own = (item for base in reversed(cls.__mro__) for item in vars(base).items() if isinstance(item[1], Part))
        return types.MappingProxyType(dict(own))

    @classmethod
    def flags(cls) -> dict[str, Setting[Any]]:
        """All flags of its settings, by name."""
        return {name: flag for part in cls.parts().values() for name, flag in part.flags().items()}

    @classmethod
    def read(cls, values: Mapping[str, Any], given: Collection[str] = ()) -> Self:
        """The group, with its values from those of all flags; see `Part.of`."""
        return cls(**{name: part.of(values, given) for name, part in cls.parts().items()})


def union(groups: Iterable[type[Group]]) -> dict[str, Part[Any]]:
    """The parts of all groups by name.

    Raises:
        UserError: two different settings have the same name, two have a flag in common, or one is no class of a group.
    """
    parts: dict[str, Part[Any]] = {}
    owners: dict[str, Part[Any]] = {}
    for group in groups:
        if not (isinstance(group, type) and issubclass(group, Group)):
            raise errors.UserError(
                f"the settings of a plugin are {errors.described(group)}; a class derived from Group is expected."
            )
        for name, part in group.parts().items():
            for flag in part.flags():
                if owners.setdefault(flag, part) is not part:
                    raise errors.UserError(
                        f"--{flag} exists already: give the setting of {group.__module__} another name."
                    )
            parts[name] = part
    return parts


def listing(help_text: str, choices: Callable[[], Mapping[str, Any]]) -> Callable[[], str]:
    """Help that describes each choice by its `description`."""
    return lambda: f"{help_text} {'; '.join(f'{name}: {choice.description}' for name, choice in choices().items())}."


class OpenChoices(dict[str, T]):
    """Choices of a flag, to which plugins add."""


def choose_from(choices: Iterable[str], value: str) -> str:
    """Advice for a value that is not a choice: the choices, and the one that was probably meant."""
    of_plugins = ", or give the --plugin that adds it" if isinstance(choices, OpenChoices) else ""
    return f"choose from {', '.join(choices)}{of_plugins}.{errors.did_you_mean(choices, str(value))}"
