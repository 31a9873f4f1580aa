"""Checks the results of methods and strategies, since a plugin's may be impossible. One line says what was expected."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_federated as tff
from absl import logging

from tff_personalization import errors, metrics
from tff_personalization.algorithms import method, stateful_clients

_ROUNDING = 1e-5  # of sums in single precision; less than one prediction of a hundred thousand
_PROCESSES = tff.learning.templates.LearningProcess | stateful_clients.StatefulProcess
_MEASURED = ("clients", "examples", "train_loss", "train_accuracy", "non_finite_clients")


def check_training(name: str, training: Any) -> None:
    """Raises UserError if a method did not build a `Training`."""
    if not isinstance(training, method.Training):
        hint = ": give method.one_stage(name, build) to Method" if isinstance(training, _PROCESSES) else ""
        raise errors.UserError(
            f"--method={name}: build gives {errors.described(training)}; an algorithms.method.Training is "
            f"expected{hint}."
        )
    first = [stage.first_round for stage in training.stages]
    if first and (first[0] != 1 or first != sorted(set(first))):
        raise errors.UserError(
            f"--method={name}: its stages begin with rounds {first}; 1 is expected first, and then later rounds."
        )


def check_round(
    name: str, output: Any, weights: Sequence[np.ndarray], round_number: int, metric: metrics.Metric = metrics.ACCURACY
) -> None:
    """Raises UserError if the output of a method's learning process lacks a metric, or has impossible ones.

    Global `weights` that are not finite are impossible. `metric` is the task's.
    """
    what = f"--method={name}, round {round_number}"
    measured = output.metrics.get("client_work") if isinstance(output.metrics, Mapping) else None
    lacking = [key for key in _MEASURED if not isinstance(measured, Mapping) or key not in measured]
    if lacking:
        raise errors.UserError(
            f"{what}: the process's metrics have no client_work with {lacking[0]}; those of "
            "composition.build_process are expected."
        )
    assert measured is not None
    score = measured["train_accuracy"]
    if score < 0 or score > (1 + _ROUNDING) * metric.upper:
        raise errors.UserError(
            f"{what}: {score:g} of the predictions in training are right; 0 to 1 is expected."
            if metric.is_share
            else f"{what}: {metric.name} of {score:g} in training; 0 to {metric.upper:g} is expected."
        )
    if not all(np.isfinite(array).all() for array in weights):
        raise errors.UserError(
            f"{what}: weights of the global model are not finite; finite ones are expected: lower the learning rates, "
            "or correct the method."
        )


def check_counts(
    strategies: Sequence[str],
    correct: np.ndarray,
    predictions: int,
    where: str,
    metric: metrics.Metric = metrics.ACCURACY,
) -> None:
    """Raises UserError if a strategy has more right answers than predictions, or a negative number.

    Args:
        strategies: the S strategies.
        correct: right answers, or the metric's scores, summed; shape (S, E + 1).
        predictions: the number of predictions.
        where: whose predictions they are, in words.
        metric: the task's.
    """
    most = predictions * metric.upper
    for name, row in zip(strategies, np.asarray(correct), strict=True):
        wrong = np.flatnonzero(~((row >= 0) & (row <= (1 + _ROUNDING) * most)))
        if len(wrong):
            epoch, found = wrong[0], row[wrong[0]]
            raise errors.UserError(
                f"--strategies: {name} has {found} right answers of {predictions} in epoch {epoch} {where}; 0 to "
                f"{predictions} are expected."
                if metric.is_share
                else f"--strategies: {name} has a sum of {found:g} ({metric.name}) over {predictions} predictions in "
                f"epoch {epoch} {where}; 0 to {most:g} is expected."
            )


def warn_of_losses(strategies: Sequence[str], losses: np.ndarray, round_number: int) -> None:
    """Warns of strategies with losses that are not finite: they diverge, or have a defect.

    Args:
        strategies: the S strategies.
        losses: sums of losses, shape (n, S, E + 1), of n clients or of all.
        round_number: the round after which they were evaluated.
    """
    finite = np.isfinite(losses).all(axis=(0, 2))
    for name in (name for name, is_finite in zip(strategies, finite, strict=True) if not is_finite):
        logging.warning(
            "Round %d: the loss under strategy %s is not finite; a finite sum is expected: lower "
            "--personalization_learning_rate, or correct the strategy.",
            round_number,
            name,
        )
