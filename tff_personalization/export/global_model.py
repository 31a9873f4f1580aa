"""Reads a run's global model from its directory, and describes it."""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from tff_personalization import errors, methods
from tff_personalization.algorithms import ifca
from tff_personalization.models import keras_layers
from tff_personalization.records import finished_run, run_directory


@dataclasses.dataclass(frozen=True)
class GlobalModel:
    """A run's global model after a round, with its weights in the model's order."""

    run: finished_run.FinishedRun
    round_number: int
    weights: tuple[np.ndarray, ...]

    @functools.cached_property
    def keras(self) -> tf.keras.Model:
        """The Keras model with these weights. UserError as `FinishedRun.keras_model`."""
        return self.run.keras_model(self.round_number)

    @property
    def keras_gives_probabilities(self) -> bool:
        """Whether the Keras model ends with the task's softmax or sigmoid, which training leaves out."""
        activation = self.run.task.predicts.activation
        return activation != "linear" and keras_layers.probabilities_by(self.keras) is not None

    def metadata(self, probabilities: bool = False) -> dict[str, Any]:
        """A description of the model for users without the run, as plain values.

        Args:
            probabilities: whether the exported form gives only probabilities, and no logits.
        """
        record, config = self.run.config, self.run.experiment.config
        activation = self.run.task.predicts.activation
        names = ("method", "task", "seed", "git_commit", "source", "synthetic", "data_sha256", "clients")
        return {
            "task": config.task,
            "model": config.model,
            "classes": list(self.run.task.classes),
            "input": self.run.task.input_in_words,
            "output": _output(activation, probabilities),
            "run": {
                "name": record["run_name"],
                **{name: record[name] for name in names},
                "rounds": config.rounds,
                "round": self.round_number,
            },
            "exported_with": {"git_commit": run_directory.git_commit(), "tensorflow": tf.__version__},
        }


def _output(activation: str, probabilities: bool) -> str:
    """What the numbers that the model gives are, in words."""
    if activation == "linear":
        return "numbers, float32, one for each of `classes`"
    if probabilities:
        return f"probabilities by {activation}, float32, one for each of `classes`"
    return f"logits, float32, one for each of `classes`; {activation} makes probabilities of them"


def read(run: finished_run.FinishedRun, which: str = finished_run.LAST) -> GlobalModel:
    """The global model of a finished run after a round, which is named as in `FinishedRun.round_number`.

    Raises:
        UserError: the run has not kept that model, or has no single global model.
    """
    method = run.experiment.config.method
    if methods.get(method).provides == ifca.SEVERAL_MODELS:
        raise errors.UserError(
            f"{run.directory}: --method={method} trains several models and no single global model: give a run of "
            "another method."
        )
    weights = run.global_weights(which).model
    return GlobalModel(run, run.round_number(which), weights)
