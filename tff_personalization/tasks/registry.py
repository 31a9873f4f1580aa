"""Tasks by name: what is predicted, the models for it, where clients come from. Adding one is one line in `TASKS`."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tff_personalization.models import char_lstm, characters, emnist_cnn, functional
from tff_personalization.tasks import sources

ModelBuilder = Callable[[int, np.random.Generator], functional.SeededModel]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is learnt: the class of each example, or the next character at each place of a text.

    Attributes:
        num_classes: 62 (digits, upper case, lower case), 10 (digits), or 90 (characters of text).
        models: the models to choose from by name, the default first.
        sources: where its client data may come from.
        is_sequence: whether an example is a sequence with a label at each place of it, such as text.
    """

    num_classes: int
    models: Mapping[str, ModelBuilder]
    sources: sources.Catalogue
    is_sequence: bool = False


EMNIST_MODELS: dict[str, ModelBuilder] = {"cnn": emnist_cnn.build_cnn, "linear": emnist_cnn.build_linear}
CHARACTER_MODELS: dict[str, ModelBuilder] = {"char_lstm": char_lstm.build_char_lstm}

TASKS = {
    "emnist62": Task(62, EMNIST_MODELS, sources.IMAGES),
    "emnist10": Task(10, EMNIST_MODELS, sources.IMAGES),
    "shakespeare": Task(
        len(characters.CLASSES), {"char_lstm": char_lstm.build_char_lstm}, sources.TEXT, is_sequence=True
    ),
}
MODELS = tuple(dict.fromkeys(name for task in TASKS.values() for name in task.models))
