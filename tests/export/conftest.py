"""Run directories as a finished run leaves them, of models that were not trained: nothing is computed for them."""

import numpy as np
import pytest
from absl import flags

from tff_personalization import seeds
from tff_personalization.experiment import config
from tff_personalization.records import run_directory
from tff_personalization.tasks import federated_data, registry

ROUNDS, BEST = 4, 2


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, by_writer_archive):
    """Makes the directory of a run of so many rounds; of 4 rounds, the models after 2 and 4 are kept."""

    def make(**settings):
        path = tmp_path_factory.mktemp("runs")
        given = {"client_data": by_writer_archive, "test_clients": 4, "output_dir": path, "run_name": "run", **settings}
        if given["client_data"] is None:
            del given["client_data"]
        values = flags.FlagValues()
        config.define_flags(values)
        values(["run_experiment", f"--rounds={ROUNDS}", *(config.argument(*item) for item in given.items())])
        experiment = config.from_flags(values)
        chosen = experiment.config
        directory = run_directory.RunDirectory(experiment)
        directory.create()
        task = registry.TASKS[chosen.task]
        for round_number in (BEST, ROUNDS):
            # Other weights than the untrained model's, and biases that are not zero.
            rng = seeds.generator(round_number, "weights")
            model = task.models[chosen.model](task.num_classes, rng)
            weights = [w + 0.05 * rng.normal(size=w.shape).astype(np.float32) for w in model.initial_weights[0]]
            directory.models.save(weights, round_number)
        directory.write_json("summary.json", {"rounds": ROUNDS, "validation_round": {"round": BEST}})
        if chosen.task == "shakespeare":
            data = {"source": "synthetic text", "synthetic": True, "data_sha256": "0" * 64, "clients": {}}
            record = {"run_name": "run", "method": "fed_avg", "task": "shakespeare", "seed": 1, "git_commit": "unknown"}
            directory.write_json("config.json", {**record, **data, "given": dict(experiment.given)})
        else:
            directory.write_config(federated_data.load(chosen), {})
        return directory.path

    return make


@pytest.fixture(scope="session")
def linear_run(finished_run):
    return finished_run(model="linear")


@pytest.fixture(scope="session")
def cnn_run(finished_run):
    return finished_run(model="cnn")


@pytest.fixture(scope="session")
def examples(by_writer_archive):
    """Twenty-three images, uint8, and labels, int32: more than a batch, and no multiple of one."""
    with np.load(by_writer_archive) as archive:
        return archive["images"][:23], archive["labels"][:23].astype(np.int32)
