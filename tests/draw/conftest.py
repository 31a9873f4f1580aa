"""A small model for the drawing page, and the evaluation computation to check the page."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from absl import flags
from flask import testing

from tff_personalization import global_weights, seeds
from tff_personalization.draw import personalizer, server
from tff_personalization.experiment import config
from tff_personalization.programs import client_evaluation
from tff_personalization.tasks import client_arrays, federated_data, registry, splits
from tff_personalization.tasks.sources import npz_archive

HOST = "127.0.0.1:8765"


def trained_model(*arguments):
    """An untrained model instead of a trained one, with the flags' settings."""
    flag_values = flags.FlagValues()
    config.define_flags(flag_values)
    flag_values(["run_experiment", *arguments])
    experiment = config.from_flags(flag_values)
    task = registry.TASKS[experiment.config.task]
    rng = seeds.generator(experiment.config.seed, "init")
    model = task.build(experiment.config.model, rng)
    strategy, weights = experiment.config.strategies[0], global_weights.GlobalWeights.initial(model)
    return personalizer.TrainedModel(experiment, model, weights, 7, strategy, "run", "synthetic bars")


@pytest.fixture(scope="session")
def maker():
    return personalizer.Personalizer(
        trained_model("--model=linear", "--personalization_learning_rate=0.1", "--personalization_batch_size=4")
    )


@pytest.fixture
def writers():
    return pd.DataFrame({"more_right": np.arange(10), "predictions": 10})


class _Client(testing.FlaskClient):
    """A client that asks for the server by its name."""

    def open(self, *arguments, **settings):
        settings.setdefault("base_url", f"http://{HOST}")
        return super().open(*arguments, **settings)


@pytest.fixture
def app(maker, writers):
    """The application, which keeps two visitors and twelve examples of each."""
    pages = server.Pages(maker, writers, {"name": "run"}, most_visitors=2, most_examples=12)
    app = server.create_app(pages, {HOST})
    app.test_client_class = _Client
    return app


@pytest.fixture
def browser(app):
    """Makes a client of the application that has opened the page."""

    def browser():
        client = app.test_client()
        assert client.get("/").status_code == 200
        return client

    return browser


def by_evaluation(trained, archive, path):
    """Right answers on the test part of an archive of one writer, before and after the run's main strategy.

    Computed by the project's evaluation in TFF's worker.
    """
    path.write_bytes(archive)
    config = trained.experiment.config
    read = npz_archive.read(str(path), "mine.npz", 62, config.seed)
    train, test = client_arrays.to_client_data(read)
    data = federated_data.FederatedData(train, test, splits.ClientSplit((), (), read.clients), read.source, "")
    experiment = dataclasses.replace(trained.experiment, config=config.replace(strategies=[trained.strategy]))
    evaluator = client_evaluation.PersonalizationEvaluator(experiment, trained.model, data, trained.weights)
    table = evaluator.evaluate(trained.weights, list(read.clients), trained.round_number).clients.set_index("epoch")
    return [table.correct[epoch] for epoch in (0, config.personalization_epochs)]
