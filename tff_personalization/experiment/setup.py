"""Prepares the inputs of a method from an experiment and its client data."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tff_personalization import aggregators, cohorts, methods, seeds
from tff_personalization.algorithms import method
from tff_personalization.experiment import config as config_lib
from tff_personalization.experiment import settings
from tff_personalization.models import functional
from tff_personalization.tasks import federated_data, registry


def model_builder(config: settings.RunSettings) -> Callable[[np.random.Generator], functional.SeededModel]:
    """Makes the untrained network that the settings name, with weights drawn from a generator."""
    return functools.partial(registry.TASKS[config.task].build, config.model)


def setup(experiment: config_lib.Experiment, data: federated_data.FederatedData) -> method.RunSetup[Any]:
    """The inputs of the experiment's method, including its untrained model."""
    config, group = experiment.config, methods.get(experiment.config.method).settings
    build_model = model_builder(config)
    aggregator = None
    if "aggregator" in group.parts():
        name = experiment.values["aggregator"]
        cohort = experiment.read(cohorts.Settings).size(len(data.split.train))
        aggregator = aggregators.build(name, experiment.read(aggregators.AGGREGATORS[name].settings), cohort)
    return method.RunSetup(
        build_model(seeds.generator(config.seed, "init")),
        experiment.read(group),
        config.rounds,
        aggregator,
        train_data=data.train,
        train_clients=data.split.train,
        seed=config.seed,
        build_model=build_model,
    )
