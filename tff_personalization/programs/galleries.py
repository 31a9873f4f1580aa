"""gallery.npz of a run with plots: the model's predictions for images of the clients that change most."""

from collections.abc import Iterable

import numpy as np

from tff_personalization import global_weights, metrics
from tff_personalization.programs import client_evaluation, rounds
from tff_personalization.tasks import registry

STRATEGY = "fine_tune"
MOST_CLIENTS = 6


def predict(
    program: rounds.Program, weights: global_weights.GlobalWeights, test: client_evaluation.EvaluationResult
) -> dict[str, np.ndarray] | None:
    """The arrays of gallery.npz (see `tools.gallery`), for the clients with the most images that become right.

    None if plots are off, the task has no images, the strategy is another one, or only aggregates are released.
    """
    config = program.experiment.config
    task = registry.TASKS[config.task]
    shown = task.drawn and task.predicts.metric == metrics.ACCURACY
    if not config.plots or not shown or STRATEGY not in config.strategies or test.clients is None:
        return None
    clients = _most_changed(test)
    return arrays(program.evaluator.predictions(weights, clients, config.rounds), task) if clients else None


def arrays(parts: Iterable[dict[str, np.ndarray]], task: registry.Task) -> dict[str, np.ndarray]:
    """The arrays of gallery.npz, of clients' `PersonalizationEvaluator.predictions`; at least one."""
    parts = list(parts)
    together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {**together, "classes": np.array(task.classes)}


def _most_changed(test: client_evaluation.EvaluationResult) -> list[str]:
    """The clients with the largest net number of images that become right by personalization."""
    assert test.clients is not None
    table = test.clients[(test.clients["strategy"] == STRATEGY) & (test.clients["test_examples"] > 0)]
    if table.empty:
        return []
    by_epoch = table.set_index(["client", "epoch"])["correct"].unstack().loc[table["client"].unique()]
    change = test.metric.gain(by_epoch[0], by_epoch[by_epoch.columns.max()])
    return list(change.sort_values(ascending=False, kind="stable").index[:MOST_CLIENTS])
