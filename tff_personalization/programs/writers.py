"""gallery.npz of a run with plots: the model's predictions for images of the clients that change most."""

import numpy as np
import tensorflow_federated as tff

from tff_personalization import global_weights, methods, metrics
from tff_personalization.experiment import config as config_lib
from tff_personalization.models import functional
from tff_personalization.personalization import predictions
from tff_personalization.programs import client_evaluation
from tff_personalization.tasks import federated_data, registry

STRATEGY = "fine_tune"
MOST_CLIENTS = 6


def predict(
    experiment: config_lib.Experiment,
    model: functional.SeededModel,
    data: federated_data.FederatedData,
    evaluator: client_evaluation.PersonalizationEvaluator,
    weights: tff.learning.models.ModelWeights,
    test: client_evaluation.EvaluationResult,
) -> dict[str, np.ndarray] | None:
    """The arrays of gallery.npz (see `tools.gallery`), for the clients with the most images that become right.

    None if plots are off, the task has no images, the strategy is another one, or only aggregates are released.
    """
    config = experiment.config
    task = registry.TASKS[config.task]
    shown = task.drawn and task.predicts.metric == metrics.ACCURACY
    if not config.plots or not shown or STRATEGY not in config.strategies or test.clients is None:
        return None
    clients = _most_changed(test)
    if not clients:
        return None
    computation = predictions.build_predictions(
        model,
        global_weights.GlobalWeights.named(weights.trainable, model, methods.get(config.method).provides),
        experiment.optimizers["personalization"].build(),
        config.personalization_epochs,
        experiment.values["personalization_batch_size"],
    )
    values = [
        evaluator.client_value(index, client, config.rounds, seed=config.evaluation_seed)
        for index, client in enumerate(clients)
    ]
    found = sorted(computation(weights, values), key=lambda predicted: int(predicted["index"]))
    parts = [data.test.examples(client) for client in clients]
    return {
        "images": np.concatenate([images for images, _ in parts]),
        "labels": np.concatenate([labels for _, labels in parts]),
        **{name: np.concatenate([predicted[name] for predicted in found]) for name in ("before", "after")},
        "client": np.repeat(clients, [len(labels) for _, labels in parts]),
        "classes": np.array(task.classes),
    }


def _most_changed(test: client_evaluation.EvaluationResult) -> list[str]:
    """The clients with the largest net number of images that become right by personalization."""
    assert test.clients is not None
    table = test.clients[(test.clients["strategy"] == STRATEGY) & (test.clients["test_examples"] > 0)]
    if table.empty:
        return []
    by_epoch = table.set_index(["client", "epoch"])["correct"].unstack().loc[table["client"].unique()]
    change = test.metric.gain(by_epoch[0], by_epoch[by_epoch.columns.max()])
    return list(change.sort_values(ascending=False, kind="stable").index[:MOST_CLIENTS])
