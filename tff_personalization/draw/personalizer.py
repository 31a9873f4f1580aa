"""A run's model outside of TFF: predicts images, and is fine-tuned on one person's examples.

Both are TensorFlow functions for any number of examples, traced once. Fine-tuning uses the run's own strategy,
optimizer, epochs and batch size, and the code of its evaluation. With the same examples in the same order and the same
writer's name, the seed and the result are also the same.
"""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf

from tff_personalization import errors, global_weights, seeds
from tff_personalization.experiment import config as config_lib
from tff_personalization.local_training import Examples
from tff_personalization.models import functional
from tff_personalization.personalization import adaptation
from tff_personalization.personalization import strategies as strategies_lib
from tff_personalization.records import finished_run
from tff_personalization.tasks import registry

Weights = tuple[tf.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A global model of a run after a round, and how the run personalizes it.

    `source` says in words what the run's data is, and begins with "synthetic" if it was generated.
    """

    experiment: config_lib.Experiment
    model: functional.SeededModel
    weights: global_weights.GlobalWeights
    round_number: int
    strategy: str
    run_name: str
    source: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The characters that the model distinguishes."""
        return registry.TASKS[self.experiment.config.task].classes


def load(run: pathlib.Path, round_number: int | None = None, strategy: str | None = None) -> TrainedModel:
    """The model that a run has kept, of the last round and with the run's main strategy unless others are named.

    Raises:
        UserError: it is not a finished run of a task with images, has kept no such model, or its strategy cannot be
            used.
    """
    opened = finished_run.FinishedRun.open(run)
    task = opened.experiment.config.task
    if not opened.task.drawn:
        raise errors.UserError(f"{run}: --task={task} has no characters to draw: give a run of emnist62 or emnist10.")
    available = opened.experiment.config.strategies
    if strategy is not None and strategy not in available:
        raise errors.UserError(
            f"--strategy={strategy}: {run} was evaluated with {', '.join(available)}: choose one of these."
        )
    name = strategy or available[0]
    if not strategies_lib.STRATEGIES[name].gives_weights:
        usable = [other for other in available if strategies_lib.STRATEGIES[other].gives_weights]
        instead = f"give --strategy={usable[0]}" if usable else "give a run with --strategies=fine_tune"
        raise errors.UserError(
            f"{run}: the strategy {name} makes no model that could be shown (see gives_weights in docs/extending.md): "
            f"{instead}."
        )
    number = opened.round_number(finished_run.LAST if round_number is None else round_number)
    return TrainedModel(
        opened.experiment, opened.model, opened.global_weights(number), number, name, opened.name, opened.source
    )


class Personalizer:
    """Predicts images, and makes a person's own model from their examples."""

    def __init__(self, trained: TrainedModel):
        config = trained.experiment.config
        self.trained = trained
        self.model = trained.model
        self._global_weights = trained.weights.like([tf.constant(w) for w in trained.weights.flat])
        self._tuning = adaptation.Tuning(
            trained.experiment.optimizers["personalization"].build(),
            config.personalization_epochs,
            trained.experiment.values["personalization_batch_size"],
            trained.experiment.read(strategies_lib.STRATEGIES[trained.strategy].settings),
        )
        of_weights = tuple(tf.TensorSpec(w.shape, w.dtype) for w in self.initial)
        images, labels = self.model.input_spec
        self._probabilities = tf.function(
            lambda weights, x: tf.nn.softmax(self.model.logits(weights, x, None)),
            input_signature=(of_weights, images),
            autograph=False,
        )
        self._hits = tf.function(
            lambda weights, x, y: functional.hits(self.model.logits(weights, x, None), y),
            input_signature=(of_weights, images, labels),
            autograph=False,
        )
        self._adapt = tf.function(
            self._adapted_weights,
            input_signature=(images, labels, tf.TensorSpec([2], tf.int32)),
            autograph=False,
        )

    @property
    def initial(self) -> Weights:
        """The weights of the initial model, with which all visitors begin."""
        return self._global_weights.model

    def probabilities(self, weights: Weights, image: np.ndarray) -> np.ndarray:
        """The probability of each class, float32, for an image, uint8 of shape (28, 28)."""
        return self._probabilities(weights, tf.constant(image[np.newaxis])).numpy()[0]

    def hits(self, weights: Weights, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Which images, uint8 of shape (n, 28, 28), a model predicts rightly: bool, shape (n,)."""
        if not len(labels):
            return np.zeros(0, bool)
        return self._hits(weights, tf.constant(images), tf.constant(labels, tf.int32)).numpy()

    def personalize(self, images: np.ndarray, labels: np.ndarray, writer: str) -> Weights:
        """The weights that the run's strategy makes from the initial model and a person's examples.

        Args:
            images: uint8, shape (n, 28, 28), n ≥ 1.
            labels: int, shape (n,).
            writer: the person's name, which gives the seed of shuffling and dropout.
        """
        trained = self.trained
        config = trained.experiment.config
        of_evaluation = config.seed if config.evaluation_seed is None else config.evaluation_seed
        seed = seeds.stateless(of_evaluation, "personalization", trained.round_number, writer)
        return self._adapt(tf.constant(images), tf.constant(labels, tf.int32), tf.constant(seed))

    def _adapted_weights(self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> Weights:
        name, examples = self.trained.strategy, Examples(images, labels)
        strategy = strategies_lib.STRATEGIES[name]
        adapted = adaptation.adapted_weights(strategy, self.model, self._global_weights, examples, seed, self._tuning)
        if [w.shape for w in adapted] != [w.shape for w in self.initial]:  # a plugin's
            raise errors.UserError(
                f"the strategy {name} has gives_weights=True, but its curve does not evaluate only by client.judge, "
                "with weights of the client's model: correct it, or give another --strategy."
            )
        return adapted

    def warm_up(self) -> None:
        """Traces all functions, so that the first visitor does not wait for it."""
        images, labels = np.zeros((2, *self.model.input_spec[0].shape[1:]), np.uint8), np.zeros(2, np.int32)
        weights = self.personalize(images, labels, "warm-up")
        self.probabilities(weights, images[0])
        self.hits(weights, images, labels)
