"""The tasks by name."""

import numpy as np
import pytest

from tff_personalization.tasks import registry

MODELS = [(task, model) for task, chosen in registry.TASKS.items() for model in chosen.models]


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_a_task_is_a_sequence_where_its_models_have_a_label_at_each_place_of_an_example(name, model):
    task = registry.TASKS[name]
    _, labels = task.models[model](task.num_classes, np.random.default_rng(0)).input_spec
    assert labels.shape.rank == (2 if task.is_sequence else 1)
