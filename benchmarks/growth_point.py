"""One point of the growth benchmark, in its own process, so that memory peaks belong to it.

    python -m benchmarks.growth_point CACHE_DIR POINT     # POINT: the attributes of `Point` as JSON

It uses the product's own data cache, cohorts, methods, evaluator and worker, with their settings. The result goes to
standard output as a line of JSON, see `measure`.
"""

import dataclasses
import itertools
import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np
import psutil

from benchmarks import recording, workload
from tff_personalization.tasks import archive_cache, archives

EVALUATION = "evaluation"
RunRound = Callable[[int], None]
"""Does a round with at most as many clients as the number says."""
_BLOCK = 10_000


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a sweep.

    Attributes:
        sweep: the name of the sweep.
        method: a name in `methods.METHODS`, or `EVALUATION`.
        clients: the size of a cohort, or the number of evaluated clients.
        population: the number of all clients.
        examples: train examples of each client.
        test_examples: test examples of each client.
        local_epochs: E of FedAvg, and the epochs of fine-tuning in the evaluation.
        local_steps: K of Reptile.
        rounds: how many rounds are timed, after one to warm up.
        warm_up_clients: the largest number of clients in the round to warm up.
    """

    sweep: str
    clients: int
    population: int
    examples: int
    rounds: int
    method: str = "fed_avg"
    test_examples: int = 0
    local_epochs: int = 1
    local_steps: int = 10
    warm_up_clients: int = sys.maxsize

    @property
    def unit(self) -> str:
        """The unit of `visits`."""
        return "clients" if self.method == EVALUATION else "examples"

    @property
    def visits(self) -> int:
        """The count of a round: visits of examples, or evaluated clients."""
        if self.method == EVALUATION:
            return self.clients
        if self.method == "reptile":
            return self.clients * self.local_steps * workload.Workload.batch_size
        return self.clients * self.examples * self.local_epochs


def archive(point: Point, cache_dir: str) -> archives.CharacterArchive:
    """A point's clients from the product's cache. The first call makes them of random pixels."""
    counts = np.repeat([[point.examples], [point.test_examples]], point.population, axis=1)

    def make(allocate: archive_cache.Allocate) -> archives.CharacterArchive:
        rng = np.random.default_rng(0)
        images = allocate(int(counts.sum()))
        for start in range(0, len(images), _BLOCK):
            block = images[start : start + _BLOCK]
            block[...] = rng.integers(0, 256, block.shape, np.uint8)
        return archives.CharacterArchive.from_counts(
            images,
            rng.integers(0, workload.NUM_CLASSES, len(images), np.int32),
            counts,
            tuple(f"{writer:07d}" for writer in range(point.population)),
            archives.CLASSES,
            "synthetic random pixels",
        )

    variant = f"{point.population}-{point.examples}-{point.test_examples}"
    return archive_cache.load_or_make(archive_cache.Entry(cache_dir, "growth", ("random",), variant), make)


def measure(point: Point, cache_dir: str) -> dict:
    """Measures a point whose data is in the cache.

    Returns:
        `load_seconds`: from the cache to `ClientData`. `first_round_seconds`: from the start of this process, Python's
        imports included, to the end of the first round. `seconds`: of each later round. `python_mb`, `worker_mb`: the
        peaks of resident memory, in MB, of this process (with the pages of the mapped images that it touched) and of
        TFF's worker. `versions`.
    """
    from tff_personalization.execution import runtime
    from tff_personalization.tasks import client_arrays

    started = time.perf_counter()
    train, test = client_arrays.to_client_data(archive(point, cache_dir))
    load_seconds = time.perf_counter() - started
    with open(os.devnull, "wb") as log, runtime.execution_context(log=log) as worker:
        run_round = (_evaluation if point.method == EVALUATION else _training)(point, train, test)
        run_round(point.warm_up_clients)
        first_round_seconds = time.time() - psutil.Process().create_time()
        seconds = []
        for _ in range(point.rounds):
            started = time.perf_counter()
            run_round(sys.maxsize)
            seconds.append(time.perf_counter() - started)
        return {
            "load_seconds": load_seconds,
            "first_round_seconds": first_round_seconds,
            "seconds": seconds,
            "python_mb": recording.peak_mb(os.getpid()),
            "worker_mb": recording.peak_mb(worker.pid),
            "versions": recording.versions_of(recording.PACKAGES),
        }


def _experiment(point: Point):
    from tff_personalization.experiment import config

    work = workload.Workload()
    method = "fed_avg" if point.method == EVALUATION else point.method
    local = {"local_steps": point.local_steps} if method == "reptile" else {"local_epochs": point.local_epochs}
    return config.from_settings(
        {
            "method": method,
            "clients_per_round": point.clients,
            **local,
            "batch_size": work.batch_size,
            "client_learning_rate": work.learning_rate,
            "server_learning_rate": 1.0,
            "strategies": "fine_tune",
            "personalization_epochs": point.local_epochs,
            "personalization_batch_size": work.batch_size,
            "personalization_learning_rate": work.learning_rate,
        }
    )


def _model(rng: np.random.Generator):
    from tff_personalization.models import emnist_cnn

    return emnist_cnn.build_cnn(workload.NUM_CLASSES, rng)


def _check(counted: int, point: Point, clients: int) -> None:
    """Raises RuntimeError if a round with this number of clients did not count the point's visits."""
    expected = dataclasses.replace(point, clients=clients).visits
    if counted != expected:
        raise RuntimeError(f"a round counted {counted} {point.unit} and not {expected}")


def _training(point: Point, train, test) -> RunRound:
    """Rounds of training as in a run, each with a new cohort."""
    from tff_personalization import methods
    from tff_personalization.algorithms import method as method_lib

    del test
    experiment = _experiment(point)
    config = experiment.config
    method = methods.get(config.method)
    setup = method_lib.RunSetup(
        _model(np.random.default_rng(0)),
        experiment.read(method.settings),
        config.rounds,
        train_data=train,
        train_clients=tuple(train.client_ids),
        seed=config.seed,
        build_model=_model,
    )
    training = method.build(setup)
    process = training.stages[0].process
    state = process.initialize()
    numbers = itertools.count(1)

    def run_round(most_clients: int) -> None:
        nonlocal state
        cohort = training.cohort(next(numbers)).values[:most_clients]
        output = process.next(state, cohort)
        state = output.state
        _check(output.metrics["client_work"]["examples"], point, len(cohort))

    return run_round


def _evaluation(point: Point, train, test) -> RunRound:
    """Evaluations of all clients, as at the end of a run."""
    from tff_personalization import global_weights
    from tff_personalization.programs import client_evaluation
    from tff_personalization.tasks import federated_data, splits

    model = _model(np.random.default_rng(0))
    clients = tuple(train.client_ids)
    data = federated_data.FederatedData(train, test, splits.ClientSplit((), (), clients), "synthetic random pixels", "")
    theta = global_weights.GlobalWeights.initial(model)
    evaluator = client_evaluation.PersonalizationEvaluator(_experiment(point), model, data, theta)

    def run_round(most_clients: int) -> None:
        result = evaluator.evaluate(theta, clients[:most_clients], 0)
        _check(result.distributions["fine_tune", point.local_epochs].clients, point, len(clients[:most_clients]))

    return run_round


if __name__ == "__main__":
    print(json.dumps(measure(Point(**json.loads(sys.argv[2])), sys.argv[1])))
