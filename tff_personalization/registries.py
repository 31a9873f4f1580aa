"""Adding to a registry of named things: methods, strategies, aggregators, optimizers."""

from typing import Any

from tff_personalization import errors


def add(registry: dict[str, Any], kind: str, name: str, value: Any, expected: type | None = None) -> None:
    """Adds `value` to a registry under a name that can be a flag's value.

    Raises:
        UserError: the name is in use, or is not one word; or the value is not of the expected type.
    """
    if name in registry:
        raise errors.UserError(f"{kind} {name!r} exists already: choose another name.")
    if not name.isidentifier():
        raise errors.UserError(f"{kind} {name!r}: give it a name of letters, digits and underscores.")
    if expected is not None and not isinstance(value, expected):
        module = expected.__module__.removeprefix("tff_personalization.")
        raise errors.UserError(
            f"{kind} {name!r} is registered as {errors.described(value)}; {module}.{expected.__name__} is expected."
        )
    registry[name] = value
