"""Strategies: how a global model is adapted to a client.

A strategy names the weights that local training starts from and which of them it trains. Adding one is one line in
`STRATEGIES`.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from tff_personalization.models import functional

Weights = tuple[tf.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A way to adapt a model to a client by local training on the client's train part.

    Attributes:
        description: what it does, for tables and help.
        start: `(model) -> weights`: where local training starts; None for the global model θ.
        trained: `model -> slice`: which of the model's weights are trained.
    """

    description: str
    start: Callable[[functional.SeededModel], Weights] | None
    trained: Callable[[functional.SeededModel], slice]


def keeps_stem(strategy: Strategy, model: functional.SeededModel) -> bool:
    """Whether the strategy leaves the stem of the global model as it is, so that features need computing only once."""
    trained = range(len(model.initial_weights[0]))[strategy.trained(model)]
    return strategy.start is None and min(trained) >= model.stem_size


def _untrained_model(model: functional.SeededModel) -> Weights:
    return tuple(tf.constant(w) for w in model.initial_weights[0])


STRATEGIES = {
    "fine_tune": Strategy("fine-tune all layers", None, lambda model: slice(None)),
    "fine_tune_head": Strategy("fine-tune the last layer", None, lambda model: slice(-model.head_size, None)),
    "local_only": Strategy("train an untrained model", _untrained_model, lambda model: slice(None)),
}
