"""The tasks of the speed benchmark: their work, and the contenders' network and examples.

Tasks: `training` (FedAvg with the epochs of the workload), `reptile` (10 local steps), `fed_sgd` (one full-batch
    gradient a client), `evaluation` (20 of a client's examples test, the others train; 5 epochs of fine-tuning,
    evaluated before and after each) and `text` (FedAvg on sequences of characters, with the LSTM).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import workload

LOCAL_STEPS = 10
EVALUATION_EPOCHS, TEST_EXAMPLES = 5, 20
WORK = workload.Workload()
TEXT = workload.TextWorkload(clients=10, examples=20, local_epochs=1, batch_size=10, learning_rate=1.0)
SEED = np.array([3, 4], np.int32)
Run = Callable[[], Any]
"""Does a round and returns what the contender makes of it."""


def visits(task: str, work: workload.Workload) -> int:
    """The count of a round of a task: visits of examples, or evaluated clients."""
    return {
        "training": work.visits,
        "text": work.visits,
        "reptile": work.clients * LOCAL_STEPS * work.batch_size,
        "fed_sgd": work.clients * work.examples,
        "evaluation": work.clients,
    }[task]


def work_of(task: str) -> workload.Workload:
    """The work of a task."""
    return TEXT if task == "text" else WORK


def model(task: str):
    """The network of a task: the paper's CNN, or the LSTM."""
    from tff_personalization.models import char_lstm, emnist_cnn

    rng = np.random.default_rng(0)
    if task == "text":
        return char_lstm.build_char_lstm(workload.CHARACTERS, rng)
    return emnist_cnn.build_cnn(workload.NUM_CLASSES, rng)


def keras_twin():
    """The paper's CNN as a Keras model, with the weights of `model`, through the path of a plugin's network."""
    import tensorflow as tf

    from tff_personalization.models import emnist_cnn, keras_twins, outputs
    from tff_personalization.tasks import archives, registry, sources

    def network(num_classes, rng):
        (weights, _) = emnist_cnn.build_cnn(num_classes, rng).initial_weights
        return registry.Network(keras_twins.cnn(num_classes, weights), keep_weights=True)

    predicts, image = outputs.classes(archives.CLASSES), tf.TensorSpec([28, 28], tf.uint8)
    task = registry.Task(predicts, image, {"twin": network}, sources.IMAGES)
    return task.build("twin", np.random.default_rng(0))


def setup(module, model, work: workload.Workload, **settings):
    """The setup of a module's method for some work: local SGD, and a server that takes over the mean."""
    from tff_personalization.algorithms import method
    from tff_personalization.optimizers import OptimizerSpec

    client, server = OptimizerSpec("sgd", work.learning_rate), OptimizerSpec("sgd", 1.0)
    return method.Setup(model, module.METHOD.settings(client=client, server=server, **settings))


def fed_avg(model, work: workload.Workload):
    """FedAvg's learning process."""
    from tff_personalization.algorithms import fed_avg

    settings = {"local_epochs": work.local_epochs, "batch_size": work.batch_size}
    return fed_avg.build_fed_avg(setup(fed_avg, model, work, **settings))


def parts(client):
    """A client's train and test part for the evaluation."""
    x, y = client
    return (x[:-TEST_EXAMPLES], y[:-TEST_EXAMPLES]), (x[-TEST_EXAMPLES:], y[-TEST_EXAMPLES:])
