"""The names that tables and folders use for columns and classes."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tff_personalization import errors
from tff_personalization.tasks import archives
from tff_personalization.tasks.sources import gathering

_COLUMNS = {
    "picture": (
        *("image", "img", "path", "file", "filename", "file_name", "filepath", "file_path", "image_path"),
        *("picture", "pixels", "x"),
    ),
    "label": ("label", "labels", "class", "character", "target", "y"),
    "client": ("client", "client_id", "writer_id", "writer", "user", "user_id", "author", "subject", "partition_id"),
    "part": ("split", "part", "subset"),
}
_CASE = "(?:upper|uppercase|capital|lower|lowercase|small|digit)"
_NIST_DIGITS = {f"{ord(digit):02x}" for digit in archives.CLASSES[:10]}
_WORDED = re.compile(f"{_CASE}[ _-]?([0-9A-Za-z])|([0-9A-Za-z])[ _-]{_CASE}")


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of a table's columns; `client` and `part` are None if it has none."""

    picture: str
    label: str
    client: str | None
    part: str | None


def columns(where: str, names: Sequence[str]) -> Columns:
    """The columns of a table, found by its column names.

    Raises:
        UserError: it has no pictures or no labels, or several columns that can be one of these.
    """
    found = {}
    for role, choices in _COLUMNS.items():
        places = {name: choices.index(plain) for name in names if (plain := name.strip().lower()) in choices}
        fitting = sorted(filter(places.__contains__, names), key=places.__getitem__)
        if role == "picture":  # a table of pictures may also have their paths
            fitting = [name for name in fitting if places[name] == places[fitting[0]]]
        if len(fitting) > 1:
            raise errors.UserError(
                f"{where}: several of its columns can be the {role} ({', '.join(fitting)}): rename or remove all but "
                "one."
            )
        if not fitting and role in ("picture", "label"):
            raise errors.UserError(
                f"{where}: none of its columns ({', '.join(names)[:200]}) is the {role}: call it {choices[0]}."
            )
        found[role] = fitting[0] if fitting else None
    return Columns(**found)  # type: ignore[arg-type]


def is_test(where: str, values: Sequence[Any]) -> np.ndarray:
    """Whether each row belongs to the test part, from the words train and test."""
    words = [str(value).strip().lower() for value in values]
    other = sorted(set(words) - {"train", "test"})
    if other:
        raise errors.UserError(f"{where}: the part of a row is {other[0]!r}: use the words train and test only.")
    return np.array([word == "test" for word in words], bool)


def named(where: str, values: Sequence[Any], names: Sequence[str] | None = None) -> list[str] | None:
    """The name of the class of each label; None if labels are the indices of 0-9, A-Z, a-z.

    Args:
        where: the data's name in errors.
        values: labels as integers or names.
        names: the name of each integer label; None if it has none.

    Raises:
        UserError: a label has no name.
    """
    if not all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in values):
        return [str(value).strip() for value in values]
    if not names:
        return None
    low, high = min(values, default=0), max(values, default=0)
    if low < 0 or high >= len(names):
        raise errors.UserError(
            f"{where}: labels go from {low} to {high}: the {len(names)} classes are 0 to {len(names) - 1}."
        )
    return [names[value].strip() for value in values]


def indices(where: str, values: Sequence[Any], names: Sequence[str] | None, classes: Mapping[str, int]) -> np.ndarray:
    """The index of each label among `archives.CLASSES`: int32, shape (n,).

    Args:
        where, values, names: as in `named`.
        classes: the index of each class by its name, from `classes_of` with the names of all classes of the data.

    Raises:
        UserError: a label is none of these.
    """
    found = named(where, values, names)
    if found is None:
        return gathering.to_labels(where, np.array(values, np.int64).reshape(len(values)), len(values))
    return np.array([classes[name] for name in found], np.int32).reshape(len(values))


def classes_of(where: str, names: set[str]) -> Mapping[str, int]:
    """The index of each class by its name: the character itself, its index from 0 to 61, or its ASCII code in hex.

    Names are read as hex codes, as in NIST's own folders, if all of them are codes of characters. If all of them are
    also indices, they must be NIST's ten digits. Names such as upper_A, lower_a and a_lower say the case, for file
    systems that do not distinguish it.

    Raises:
        UserError: a name is none of these, or all can be codes and indices.
    """
    in_hex = {f"{ord(name):02x}": index for index, name in enumerate(archives.CLASSES)}
    if names and all(len(name) == 2 and name.lower() in in_hex for name in names):
        if names != _NIST_DIGITS and all(name.isdigit() and int(name) < len(archives.CLASSES) for name in names):
            raise errors.UserError(
                f"{where}: the classes {', '.join(sorted(names))} can be indices (0 to 61) or hexadecimal ASCII codes: "
                "call them by their characters (0-9, A-Z, a-z)."
            )
        return {name: in_hex[name.lower()] for name in names}
    found = {}
    for name in names:
        worded = _WORDED.fullmatch(name)
        character = (worded[1] or worded[2]) if worded else name
        if character in archives.CLASSES:
            if worded:
                character = character.lower() if re.search("lower|small", name) else character.upper()
            found[name] = archives.CLASSES.index(character)
        elif re.fullmatch(r"\d+(\.0)?", name) and float(name) < len(archives.CLASSES):
            found[name] = int(float(name))
        else:
            raise errors.UserError(
                f"{where}: the class {name!r} is unknown: use the character (0-9, A-Z, a-z) or its index, 0 to 61."
            )
    return found
