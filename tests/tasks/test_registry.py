"""The tasks by name."""

import numpy as np
import pytest

from tff_personalization.tasks import registry

MODELS = [(task, model) for task, chosen in registry.TASKS.items() for model in chosen.models]


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_networks_take_and_predict_what_their_task_says(name, model):
    task = registry.TASKS[name]
    network = task.build(model, np.random.default_rng(0))
    assert network.input_spec == (task.x_spec, task.predicts.y_spec)
    assert network.initial_weights[0][-1].shape == (task.num_classes,)
