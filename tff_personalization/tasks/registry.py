"""Tasks by name: the classes to tell apart and the models that can. Adding one is one line in `TASKS`."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tff_personalization.models import emnist_cnn, functional

ModelBuilder = Callable[[int, np.random.Generator], functional.SeededModel]


@dataclasses.dataclass(frozen=True)
class Task:
    """Character recognition on 28×28 images: cross-entropy loss, accuracy as the metric.

    Attributes:
        num_classes: 62 (digits, upper case, lower case) or 10 (digits).
        models: the models to choose from by name.
    """

    num_classes: int
    models: Mapping[str, ModelBuilder]


EMNIST_MODELS: dict[str, ModelBuilder] = {"cnn": emnist_cnn.build_cnn, "linear": emnist_cnn.build_linear}

TASKS = {
    "emnist62": Task(62, EMNIST_MODELS),
    "emnist10": Task(10, EMNIST_MODELS),
}
