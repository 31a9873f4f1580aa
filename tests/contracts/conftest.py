"""The program in this process, for the contracts of all methods or strategies."""

import pathlib
import sys
from unittest import mock

import numpy as np
import pytest
from absl import flags

from tests import shared_graphs
from tests.contracts import tiny_cnn
from tff_personalization import methods, plugins
from tff_personalization.execution import interruption
from tff_personalization.experiment import config
from tff_personalization.experiment import setup as setup_lib
from tff_personalization.personalization import strategies
from tff_personalization.programs import report, training
from tff_personalization.tasks import federated_data, registry

PLUGIN = pathlib.Path(__file__).parents[2] / "examples" / "my_plugin.py"


@pytest.fixture(scope="module")
def plugin():
    """The loaded example plugin: the contracts hold for its method and strategy too."""
    registries = methods.METHODS, strategies.STRATEGIES, plugins._loaded
    before = [dict(registry_) for registry_ in registries]
    flags_before = set(flags.FLAGS)
    plugins.load(["", f"--plugin={PLUGIN}"])
    yield
    for registry_, entries in zip(registries, before, strict=True):
        registry_.clear()
        registry_.update(entries)
    for name in set(flags.FLAGS) - flags_before:
        delattr(flags.FLAGS, name)
    sys.modules.pop(PLUGIN.stem, None)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A by-writer archive of bars with twelve writers. Every third has one example, and so no test example."""
    rng = np.random.default_rng(7)
    counts = [1 if writer % 3 == 2 else 12 + writer for writer in range(12)]
    labels = rng.integers(0, 5, sum(counts))
    images = rng.integers(0, 120, (len(labels), 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[5 * label : 5 * label + 4, 4:24] += 100
        image[[0, -1]] = image[:, [0, -1]] = 0
    path = tmp_path_factory.mktemp("contracts") / "bars.npz"
    writer = np.repeat([f"w{number:02d}" for number in range(len(counts))], counts)
    np.savez(path, images=images.astype(np.uint8), labels=labels, writer=writer)
    return path


class Program:
    """Runs experiments in this process, and gives their methods."""

    def __init__(self, archive, output_dir):
        self._defaults = {
            "client_data": archive,
            "output_dir": output_dir,
            "model": "linear",
            "rounds": 3,
            "clients_per_round": 3,
            "test_clients": 6,
            "local_epochs": 2,
            "batch_size": 4,
            "personalization_epochs": 1,
            "rounds_per_evaluation": 2,
            "rounds_per_checkpoint": 2,
            "plots": False,
        }

    def experiment(self, **settings):
        """The experiment of flags; one that is None is not given."""
        given = {name: value for name, value in (self._defaults | settings).items() if value is not None}
        flag_values = flags.FlagValues()
        config.define_flags(flag_values)
        flag_values(["", *(config.argument(name, value) for name, value in given.items())])
        return config.from_flags(flag_values)

    def run(self, run_name, **settings):
        """The directory of a finished run, whose report is printed."""
        with interruption.Interruption() as interrupt:
            directory = training.run(self.experiment(run_name=run_name, **settings), interrupt)
        report.print_report(directory)
        return directory.path

    def training(self, method, **settings):
        """A method's training, as the program builds it."""
        experiment = self.experiment(method=method, **settings)
        return methods.get(method).build(setup_lib.setup(experiment, federated_data.load(experiment.config)))


@pytest.fixture(scope="module")
def program(plugin, worker, archive, tmp_path_factory):
    """The program, whose runs share their graphs."""
    networks = {"linear": tiny_cnn.build, "cnn_group_norm": tiny_cnn.build_normalized}
    with shared_graphs.shared(worker), mock.patch.dict(registry.EMNIST_MODELS, networks):
        yield Program(archive, tmp_path_factory.mktemp("runs"))
