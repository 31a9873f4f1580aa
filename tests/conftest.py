"""Shared by all tests: a quiet TensorFlow, one TFF worker, and small data.

Fixtures import modules that need TensorFlow, which takes seconds. Pytest's own process, which starts the workers, does
not need it, and tests of `analysis` do not either.
"""

import contextlib
import functools
import gc
import pathlib
import shutil
import signal
import subprocess
import sys
import types
from unittest import mock

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from tff_personalization import startup  # the package silences TensorFlow, if it comes first

gc.disable()  # Garbage collection would take a quarter of the time of building graphs; once for each file is enough.

# A suite that is started with nohup or in the background ignores these, and so would the programs that it starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def _collections():
    yield
    gc.collect()
    gc.freeze()  # Later collections need not look at the remaining objects.


@pytest.fixture(scope="session", autouse=True)
def _after_the_imports():
    startup.end_default_context()  # It would start a worker.
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _shared_finalizers():
    if "tensorflow_federated" not in sys.modules:  # none of the collected tests builds one
        yield
        return
    from tests import known_types, shared_graphs

    known_types.remember()
    with shared_graphs.finalizers():
        yield


@pytest.fixture(scope="session")
def worker(tmp_path_factory):
    """TFF's worker process, as in a run."""
    from tff_personalization.execution import runtime

    log_path = tmp_path_factory.mktemp("worker") / "worker.log"
    with log_path.open("wb") as log, runtime.execution_context(cores=2, log=log) as worker:
        yield worker


@pytest.fixture(scope="session")
def by_writer_archive(tmp_path_factory) -> pathlib.Path:
    """A by-writer archive of twelve made-up writers.

    Each class is a bar at one place. Every second writer swaps the bars of classes 0 and 1, and a tenth of the labels
    are wrong."""
    rng = np.random.default_rng(7)
    images, labels, writers = [], [], []
    for writer in range(12):
        count = 24 + 2 * writer
        labels_of_writer = rng.integers(0, 5, count)
        pictures = rng.integers(0, 120, (count, 28, 28))
        for picture, label in zip(pictures, labels_of_writer, strict=True):
            place = 1 - label if writer % 2 and label < 2 else label
            picture[5 * place : 5 * place + 4, 4:24] += 100
            picture[[0, -1]] = picture[:, [0, -1]] = 0
        wrong = rng.random(count) < 0.1
        labels_of_writer[wrong] = rng.integers(0, 5, wrong.sum())
        images.append(pictures.astype(np.uint8))
        labels.append(labels_of_writer)
        writers.append(np.full(count, f"w{writer:02d}"))
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, images=np.concatenate(images), labels=np.concatenate(labels), writer=np.concatenate(writers))
    return path


@pytest.fixture(scope="session")
def _run_in(by_writer_archive, worker):
    import run_experiment  # which defines its flags
    from tests import shared_graphs
    from tff_personalization import methods

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["run_experiment"])

    def run(directory, **settings):
        small = {
            "client_data": str(by_writer_archive),
            "model": "linear",
            "rounds": 4,
            "clients_per_round": 3,
            "test_clients": 4,
            "local_epochs": 2,
            "personalization_epochs": 2,
            "rounds_per_evaluation": 2,
            # The main strategy, which is evaluated between rounds too: one graph.
            "strategies": list(methods.get(settings.get("method", "fed_avg")).strategies[:1]),
            "output_dir": str(directory),
            "run_name": "run",
            "plots": False,
            **settings,
        }
        # A setting that the method does not read is refused.
        small = {name: value for name, value in small.items() if value is not None}
        with flagsaver.flagsaver(**small), shared_graphs.shared(worker):
            assert run_experiment.main(["run_experiment"]) == 0
        return directory / small["run_name"]

    return run


@pytest.fixture
def _forked_runs(monkeypatch):
    """Makes the runs and tools of a sweep in this process forks of one that has imported TensorFlow."""
    from tests import forked
    from tff_personalization.execution import child_processes
    from tff_personalization.sweeps import run_processes
    from tff_personalization.tools import paper

    monkeypatch.setattr(child_processes, "ending_with_parent", list)
    streams = {"DEVNULL": subprocess.DEVNULL, "PIPE": subprocess.PIPE}
    forks = types.SimpleNamespace(Popen=forked.Popen, run=forked.run, **streams)
    for starts_processes in (run_processes, paper):
        monkeypatch.setattr(starts_processes, "subprocess", forks)


# Nobody reads this run's data, which would take seconds to make.
_NO_DATA = types.SimpleNamespace(
    source="synthetic text",
    synthetic=True,
    sha256="0" * 64,
    examples_sha256="",
    split=types.SimpleNamespace(counts=dict),
)


@pytest.fixture
def run(tmp_path, _run_in):
    """Runs the program, in this process, with small settings, and returns the run directory."""
    return functools.partial(_run_in, tmp_path)


@pytest.fixture(scope="session")
def stopped_after():
    """A context in which a run is stopped after a number of rounds, as by Ctrl-C."""
    from tff_personalization.programs import rounds

    @contextlib.contextmanager
    def stopped_after(count):
        train = rounds.train

        def stops(program, state):
            if state.round_number == count:
                raise KeyboardInterrupt
            return train(program, state)

        with mock.patch.object(rounds, "train", stops), pytest.raises(KeyboardInterrupt):
            yield

    return stopped_after


@pytest.fixture(scope="session")
def _runs(tmp_path_factory, _run_in):
    return functools.cache(lambda settings: _run_in(tmp_path_factory.mktemp("runs"), **dict(settings)))


@pytest.fixture
def run_once(tmp_path, _runs):
    """As `run`, but copies a run that another test made with the same settings; give lists as tuples."""

    def run_once(**settings):
        made = _runs(tuple(sorted(settings.items())))
        return shutil.copytree(made, tmp_path / made.name)

    return run_once


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, by_writer_archive):
    """Makes the directory of a run of four rounds without computing it, with models of rounds 2 and 4."""
    from tff_personalization import seeds
    from tff_personalization.experiment import config
    from tff_personalization.records import run_directory, run_records, run_writer
    from tff_personalization.tasks import federated_data, registry

    last, best = 4, 2

    def make(**settings):
        path = tmp_path_factory.mktemp("runs")
        given = {"client_data": by_writer_archive, "test_clients": 4, "output_dir": path, "run_name": "run", **settings}
        if given["client_data"] is None:
            del given["client_data"]
        values = flags.FlagValues()
        config.define_flags(values)
        values(["run_experiment", f"--rounds={last}", *(config.argument(*item) for item in given.items())])
        experiment = config.from_flags(values)
        chosen = experiment.config
        task, directory = registry.TASKS[chosen.task], run_directory.RunDirectory(experiment)
        data = _NO_DATA if task.predicts.by_place else federated_data.load(chosen)
        figures = {"rounds": last, "validation_round": {"round": best}, "strategy": chosen.strategies[0]}
        epochs = {"personalization_epochs": chosen.personalization_epochs}
        without_figures = {
            name: dict.fromkeys(kind) if isinstance(kind, dict) else {} if kind is dict else 0
            for name, kind in run_records.SUMMARY.items()
        }
        with run_writer.opened(directory, data, {}) as writer:
            for round_number in (best, last):
                # Other weights than the untrained model's, and biases that are not zero.
                rng = seeds.generator(round_number, "weights")
                model = task.build(chosen.model, rng)
                weights = [w + 0.05 * rng.normal(size=w.shape).astype(np.float32) for w in model.initial_weights[0]]
                writer.models.save(weights, round_number)
            writer.write_json("summary.json", {**without_figures, **figures, **epochs})
        return directory.path

    return make
