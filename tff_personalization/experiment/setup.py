"""From an experiment and its client data to what its method is built from."""

import functools
from collections.abc import Callable

import numpy as np

from tff_personalization import methods, seeds
from tff_personalization.experiment import config as config_lib
from tff_personalization.experiment import settings
from tff_personalization.models import functional
from tff_personalization.tasks import federated_data, registry


def model_builder(config: settings.ExperimentConfig) -> Callable[[np.random.Generator], functional.SeededModel]:
    """Makes the network that the settings name, untrained, its weights drawn from a generator."""
    task = registry.TASKS[config.task]
    return functools.partial(task.models[config.model], task.num_classes)


def setup(experiment: config_lib.Experiment, data: federated_data.FederatedData) -> methods.Setup:
    """What the experiment's method is built from, its untrained model included."""
    config = experiment.config
    build_model = model_builder(config)
    return methods.Setup(
        build_model(seeds.generator(config.seed, "init")),
        data.train,
        data.split.train,
        experiment.settings,
        experiment.optimizers,
        config.seed,
        build_model,
    )
