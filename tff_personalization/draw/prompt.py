"""The short prompt: characters that are easily confused, each a few times."""

from collections.abc import Sequence

LOOK_ALIKES = ("0Oo", "1lI", "5S", "2Z", "uv", "17", "49", "56", "38")
MOST_CHARACTERS, TIMES = 12, 3


def characters(classes: Sequence[str]) -> list[str]:
    """The characters to draw, in order: groups of look-alikes of which the task's classes have two, repeatedly."""
    groups = [[character for character in group if character in classes] for group in LOOK_ALIKES]
    each_once = dict.fromkeys(character for group in groups if len(group) > 1 for character in group)
    return list(each_once)[:MOST_CHARACTERS] * TIMES
