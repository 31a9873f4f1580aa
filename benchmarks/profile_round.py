"""Where the time of a training round goes: FedAvg on the workload of `benchmarks.workload`.

    python -m benchmarks.profile_round [--repetitions=7]

It times TFF's calls to its worker. Each moment counts for the innermost call, so the parts of a round add up to the
round. The worker's time between a call and its result (`computing`) cannot be observed directly. It is divided by three
shorter computations on the same cohort and weights, measured in turn with the round:

    still      the round without local steps
    clients    `still` without the mean of the deltas and the server step: a client returns its delta's sum, a number
    echo       the server's weights, sent to the worker and back

| part | how it is measured |
|---|---|
| client data | making the cohort's values in Python |
| serialization | `RemoteExecutor.create_value`, without the call to the worker in it |
| sending | all calls to the worker that create or dispose of something |
    | start of clients | computing of `clients`: weights and data sent to each client, and its computation started |
| local steps | computing of the round − computing of `still` |
| mean of deltas, server step | computing of `still` − computing of `clients` − computing of `echo` |
| result | computing of `echo`, and converting the worker's answer to arrays |
    | the rest in Python | other work of TFF, and Python's garbage collection |

The round is the one with the median time; the computing of the others is a median. `profile.csv` in --output_dir has a
row for each part: `milliseconds` and `share` of the round, with the versions and the commit.
"""

import collections
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

from benchmarks import recording, tasks, workload  # isort: skip; before TensorFlow, which it keeps quiet

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import cohorts, global_weights, local_training
from tff_personalization.algorithms import client_work, composition
from tff_personalization.execution import runtime
from tff_personalization.models import emnist_cnn, functional

CLIENT_DATA, SERIALIZATION, SENDING, COMPUTING, RESULT, REST = (
    "client data",
    "serialization",
    "sending",
    "computing",
    "result",
    "the rest in Python",
)
START, STEPS, MEAN = "start of clients", "local steps", "mean of deltas, server step"
PARTS = (CLIENT_DATA, SERIALIZATION, SENDING, START, STEPS, MEAN, RESULT, REST)
_SENDING_CALLS = (
    "get_executor",
    "create_value",
    "create_struct",
    "create_selection",
    "dispose",
    "dispose_executor",
)
_COMPUTING_CALLS = ("create_call", "compute")
SEED = np.array([3, 4], np.int32)


class Clock:
    """Adds the time that passes to the innermost of the active parts.

    Attributes:
        seconds: the time of each part.
    """

    def __init__(self) -> None:
        self.seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
        self._parts: list[str] = []
        self._since = 0.0

    def _deal(self) -> None:
        now = time.perf_counter()
        if self._parts:
            self.seconds[self._parts[-1]] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A context in which a part is active."""
        self._deal()
        self._parts.append(name)
        try:
            yield
        finally:
            self._deal()
            self._parts.pop()

    def timed(self, name: str, function: Callable) -> Callable:
        """`function`, timed as a part."""

        def call(*args, **kwargs):
            with self.part(name):
                return function(*args, **kwargs)

        return call

    def timed_coroutine(self, name: str, function: Callable) -> Callable:
        """`function`, timed as a part. It returns a coroutine that awaits only results that are ready."""

        async def call(*args, **kwargs):
            with self.part(name):
                return await function(*args, **kwargs)

        return call


@contextlib.contextmanager
def _timed_executor(clock: Clock, stub: tff.framework.RemoteExecutorGrpcStub) -> Iterator[None]:
    """Times TFF's calls to the worker."""
    executor = tff.framework.RemoteExecutor
    with contextlib.ExitStack() as stack:
        for method, name in (("create_value", SERIALIZATION), ("_compute", RESULT)):
            timed = clock.timed_coroutine(name, getattr(executor, method))
            stack.enter_context(mock.patch.object(executor, method, timed))
        for calls, name in ((_SENDING_CALLS, SENDING), (_COMPUTING_CALLS, COMPUTING)):
            for call in calls:
                timed = clock.timed(name, getattr(stub, call))
                stack.enter_context(mock.patch.object(stub, call, timed))
        yield


def _computations(
    model: functional.SeededModel, work: workload.Workload
) -> dict[str, Callable[[list[tf.data.Dataset]], Any]]:
    """The round and the three shorter computations, each as a function of the cohort's values."""
    client, server = (tff.learning.optimizers.build_sgdm(rate) for rate in (work.learning_rate, 1.0))
    training = local_training.LocalTraining(model, client, work.batch_size)

    def no_steps(theta, client, state):
        return client_work.update_from(theta, training.train(theta, client, 0))

    still_work = client_work.client_work_parts(model, no_steps, "examples")
    whole = tasks.fed_avg(model, work)
    still = composition.build_process(model, no_steps, "examples", server)
    weights = tff.learning.models.ModelWeights(*model.initial_weights)
    weights_type = client_work.weights_type(global_weights.GlobalWeights.initial(model))
    at_server = tff.FederatedType(weights_type, tff.SERVER)

    @tff.tensorflow.computation(still_work.result_type.update)
    def sum_of_entries(delta):
        return tf.add_n([tf.reduce_sum(part) for part in tf.nest.flatten(delta)])

    @tff.federated_computation(at_server, tff.FederatedType(client_work.client_data_type(model), tff.CLIENTS))
    def clients(weights, data):
        output, _ = still_work.next(still_work.initialize(), tff.federated_broadcast(weights), data)
        return output.measurements, tff.federated_sum(tff.federated_map(sum_of_entries, output.result.update))

    @tff.tensorflow.computation(weights_type)
    def same(weights):
        return weights

    @tff.federated_computation(at_server)
    def echo(weights):
        return tff.federated_map(same, weights)

    whole_state, still_state = whole.initialize(), still.initialize()
    return {
        "whole": lambda cohort: whole.next(whole_state, cohort),
        "still": lambda cohort: still.next(still_state, cohort),
        "clients": lambda cohort: clients(weights, cohort),
        "echo": lambda cohort: echo(weights),
    }


def measure(work: workload.Workload, repetitions: int) -> dict[str, list[dict[str, float]]]:
    """The seconds of each part, for each repetition of each computation; the computations take turns."""
    examples = work.cohort()
    model = emnist_cnn.build_cnn(workload.NUM_CLASSES, np.random.default_rng(0))
    measured: dict[str, list[dict[str, float]]] = collections.defaultdict(list)
    with open(os.devnull, "wb") as log, runtime.execution_context(log=log) as worker:
        computations = _computations(model, work)
        for repetition in range(repetitions + 1):
            for name, compute in computations.items():
                clock = Clock()
                with _timed_executor(clock, worker.stub()), clock.part(REST):
                    with clock.part(CLIENT_DATA):
                        cohort = [cohorts.client_value(*client, SEED) for client in examples]
                    compute(cohort)
                if repetition:  # the first warms up
                    measured[name].append(dict(clock.seconds))
    return measured


def parts_of_round(measured: Mapping[str, list[dict[str, float]]]) -> pd.DataFrame:
    """The parts of the round with the median time, see the head of the file: part, milliseconds, share."""
    rounds = sorted(measured["whole"], key=lambda seconds: sum(seconds.values()))
    seconds = rounds[(len(rounds) - 1) // 2].copy()
    still, clients, echo = (
        statistics.median(one[COMPUTING] for one in measured[name]) for name in ("still", "clients", "echo")
    )
    computing = seconds.pop(COMPUTING)
    seconds |= {START: clients, STEPS: computing - still, MEAN: still - clients - echo, RESULT: seconds[RESULT] + echo}
    table = pd.DataFrame({"part": part, "milliseconds": 1000 * seconds[part]} for part in PARTS)
    return table.assign(share=table["milliseconds"] / table["milliseconds"].sum()).round(
        {"milliseconds": 2, "share": 4}
    )


def main() -> None:
    parser = recording.parser(__doc__, 7, "rounds that are measured")
    options = parser.parse_args()
    table = parts_of_round(measure(workload.Workload(), options.repetitions))
    print(table.to_string(index=False), flush=True)
    print(f"{'the round':>27}{table['milliseconds'].sum():>14.1f}", flush=True)
    versions = recording.words(recording.versions_of(recording.PACKAGES))
    recording.write(table.assign(versions=versions), options.output_dir / "profile.csv")


if __name__ == "__main__":
    main()
