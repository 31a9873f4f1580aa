"""TFF's worker process: start, restart, end."""

import contextlib
import os
import pathlib
import resource
import signal
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import setups
from tff_personalization import cohorts, errors, optimizers
from tff_personalization.algorithms import fed_avg
from tff_personalization.execution import in_parts, runtime, watchdog, worker_binary
from tff_personalization.models import emnist_cnn


@tff.tensorflow.computation(np.int32)
def double(x):
    return 2 * x


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def sum_of_doubles(values):
    return tff.federated_sum(tff.federated_map(double, values))


def log_in(directory):
    return (directory / "worker.log").open("wb")


def test_a_worker_computes_and_ends_with_its_context(tmp_path):
    with log_in(tmp_path) as log, runtime.execution_context(cores=2, log=log) as worker:
        pid = worker.pid
        assert sum_of_doubles([1, 2, 3]) == 12
        environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        assert b"TF_NUM_INTRAOP_THREADS=1\0" in environment
    assert not pathlib.Path(f"/proc/{pid}").exists()


def test_a_worker_that_was_killed_is_started_again_and_the_work_redone(tmp_path):
    with log_in(tmp_path) as log, runtime.execution_context(cores=2, log=log) as worker:
        assert sum_of_doubles([1, 2, 3]) == 12
        pid = worker.pid
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        assert sum_of_doubles([1, 2, 3, 4]) == 20
        assert worker.pid != pid


@tff.tensorflow.computation(np.int32)
def slow_double(x):
    """Some seconds of work in the worker."""
    _, value = tf.while_loop(
        lambda i, _: i < 400,
        lambda i, m: (i + 1, tf.linalg.matmul(m, m) / 400.0),
        (0, tf.ones((400, 400))),
    )
    return 2 * x + tf.cast(0.0 * value[0, 0], tf.int32)


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def slow_sum_of_doubles(values):
    return tff.federated_sum(tff.federated_map(slow_double, values))


class Killer(threading.Thread):
    """Kills the worker of a context a number of times, a while after it was started."""

    def __init__(self, worker, times):
        super().__init__()
        self._worker = worker
        self._times = times
        self.killed = []

    def run(self):
        deadline = time.monotonic() + 60
        while len(self.killed) < self._times and time.monotonic() < deadline:
            time.sleep(0.6)
            with contextlib.suppress(AssertionError, ProcessLookupError):
                pid = self._worker.pid
                if pid not in self.killed:
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(pid)


def test_a_worker_that_is_killed_during_a_computation_has_it_done_by_another(tmp_path):
    with log_in(tmp_path) as log, runtime.execution_context(cores=2, log=log) as worker:
        assert sum_of_doubles([1]) == 2
        killer = Killer(worker, times=2)
        killer.start()
        assert slow_sum_of_doubles([1, 2, 3]) == 12
        killer.join()
        assert len(killer.killed) == 2
        assert worker.pid not in killer.killed


def test_a_computation_that_ends_every_worker_is_given_up(tmp_path):
    with log_in(tmp_path) as log, runtime.execution_context(cores=2, log=log) as worker:
        killer = Killer(worker, times=4)
        killer.start()
        with pytest.raises(errors.UserError, match=r"ended 4 times .* status -9.*worker.log"):
            slow_sum_of_doubles(list(range(400)))
        killer.join()
        assert sum_of_doubles([1]) == 2  # the next call is another computation


@tff.tensorflow.computation(np.int32)
def large(x):
    """Needs 40 MB in the worker."""
    return x + tf.cast(tf.reduce_sum(tf.random.stateless_uniform([10_000_000], [x, 1])) * 0, tf.int32)


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def sum_of_large(values):
    return tff.federated_sum(tff.federated_map(large, values))


def limit_memory(pid):
    """Limits a process to its present memory."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[0])
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))


def test_a_worker_without_memory_has_its_work_done_by_another(tmp_path):
    with log_in(tmp_path) as log, runtime.execution_context(cores=2, log=log) as worker:
        assert sum_of_doubles([1]) == 2
        pid = worker.pid
        limit_memory(pid)
        assert sum_of_large([1, 2, 3]) == 6
        assert worker.pid != pid


def test_a_worker_that_hangs_has_its_work_done_by_another(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "_POLL_SECONDS", 0.1)
    monkeypatch.setattr(watchdog, "_IDLE", 1.0)
    monkeypatch.setattr(watchdog, "_STARVED", 100.0)
    monkeypatch.setattr(watchdog, "_STILL_SECONDS", 1.0)
    with log_in(tmp_path) as log, runtime.execution_context(cores=2, log=log) as worker:
        assert sum_of_doubles([1]) == 2
        pid = worker.pid
        os.kill(pid, signal.SIGSTOP)
        assert sum_of_doubles([1, 2]) == 6
        assert worker.pid != pid
        pid = worker.pid
        time.sleep(2)  # while nobody waits for it
        assert sum_of_doubles([3]) == 6
        assert worker.pid == pid


@pytest.mark.parametrize(
    "words", ["OOM when allocating tensor", "Unexpected error in RPC handling", "Server Threadpool Exhausted"]
)
def test_a_worker_that_only_reports_out_of_memory_is_handled_in_the_same_way(tmp_path, words):
    answers = [grpc.RpcError(words), grpc.RpcError(words), "the result"]

    def compute(contexts):
        assert len(contexts) == 1
        answer = answers.pop(0)
        if isinstance(answer, str):
            return answer
        raise answer

    with log_in(tmp_path) as log, runtime.execution_context(cores=2, log=log) as worker:
        pid = worker.pid
        assert worker.attempt(compute) == "the result"
        assert worker.pid != pid
        answers = [grpc.RpcError(words)] * 4
        with pytest.raises(errors.UserError, match=r"ended 4 .*give fewer --cores.*--clients_per_call"):
            worker.attempt(compute)
        answers = [grpc.RpcError("of another kind")]
        with pytest.raises(grpc.RpcError, match="of another kind"):
            worker.attempt(compute)


def test_a_worker_that_does_not_start_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_binary, "PATH", "/bin/false")
    with (
        log_in(tmp_path) as log,
        runtime.execution_context(cores=2, log=log),
        pytest.raises(errors.UserError, match=r"/bin/false ended 4 times during .*, the last time with status 1"),
    ):
        sum_of_doubles([1])


@tff.tensorflow.computation(np.int32)
def square_of_a_place(place):
    return tf.gather(tf.constant([0, 1, 4]), place)


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def sum_of_squares(places):
    return tff.federated_sum(tff.federated_map(square_of_a_place, places))


def test_values_that_an_operation_does_not_take_are_one_line(worker):
    for clients_per_call in (2, 1):
        with runtime.computing_on(worker, clients_per_call):
            assert sum_of_squares([1, 2]) == 5
            with pytest.raises(errors.UserError, match=r"indices = 3 is not in \[0, 3\): correct the client data"):
                sum_of_squares([1, 3])


def five_clients_of_a_softmax_regression():
    rng = np.random.default_rng(0)
    return [
        cohorts.client_value(
            rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 3, n, np.int32), np.array([n, 2], np.int32)
        )
        for n in (5, 9, 2, 7, 4)
    ]


def test_a_round_in_parts_equals_the_round_in_one_piece(worker):
    model = emnist_cnn.build_linear(3, np.random.default_rng(1))
    of_server = optimizers.OptimizerSpec("adam", 0.01)
    process = fed_avg.build_fed_avg(setups.setup(fed_avg, model, server=of_server, local_epochs=2, shuffle=True))
    outputs = []
    for clients_per_call in (5, 2, 1):
        with runtime.computing_on(worker, clients_per_call):
            state = process.initialize()
            for _ in range(2):
                output = process.next(state, five_clients_of_a_softmax_regression())
                state = output.state
        outputs.append(output)
    whole = outputs[0]
    assert whole.metrics["client_work"]["clients"] == 5
    for parts in outputs[1:]:
        for a, b in zip(tf.nest.flatten(whole.state), tf.nest.flatten(parts.state), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        for name in ("clients", "examples", "non_finite_clients"):
            assert whole.metrics["client_work"][name] == parts.metrics["client_work"][name]


def test_computations_in_parts_leave_no_threads_behind(worker):
    with runtime.computing_on(worker, 2):
        assert sum_of_doubles([1, 2, 3]) == 12
        before = threading.active_count()
        for _ in range(3):
            assert sum_of_doubles([1, 2, 3]) == 12
        assert threading.active_count() == before


class Nobody(tff.framework.AsyncContext):
    async def invoke(self, comp, arg):
        raise AssertionError("nothing is computed here")


def test_what_merges_is_kept_for_as_long_as_its_workers_are_there():
    one, two, back = Nobody(), Nobody(), Nobody()
    context = in_parts.Context(None, 2)
    kept = context._merging_context([one, two], 4)
    assert context._merging_context([one, two], 4) is kept
    assert context._merging_context([one, two], 3) is not kept
    context._merging_context([one], 2)
    context._merging_context([one, back], 4)
    assert list(context._merging) == [((one,), 2), ((one, back), 4)]


def weighted_values(factory):
    """A computation that aggregates the clients' vectors of two numbers in one round of `factory`'s process."""
    process = factory.create(tff.types.to_type((np.float32, [2])))

    @tff.federated_computation(tff.FederatedType(tff.types.to_type((np.float32, [2])), tff.CLIENTS))
    def aggregate(values):
        return process.next(process.initialize(), values).result

    return aggregate


@pytest.mark.parametrize(
    "factory",
    [
        tff.aggregators.SumFactory(),
        tff.aggregators.UnweightedMeanFactory(),
        tff.aggregators.clipping_factory(1.5, tff.aggregators.UnweightedMeanFactory()),
        tff.aggregators.zeroing_factory(3.0, tff.aggregators.UnweightedMeanFactory()),
    ],
    ids=["sum", "mean", "clipping", "zeroing"],
)
def test_an_aggregator_in_parts_equals_it_in_one_piece(worker, factory):
    values = [np.array([i, -0.5 * i], np.float32) for i in range(5)]
    results = []
    for clients_per_call in (5, 2):
        with runtime.computing_on(worker, clients_per_call):
            results.append(weighted_values(factory)(values))
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)
    assert np.abs(results[0]).max() > 0


def test_an_aggregate_that_depends_on_another_of_the_same_round_is_computed_in_one_piece(worker):
    @tff.tensorflow.computation(np.float32, np.float32)
    def squared_deviation(value, mean):
        return (value - mean) ** 2

    @tff.federated_computation(tff.FederatedType(np.float32, tff.CLIENTS))
    def variance(values):
        mean = tff.federated_broadcast(tff.federated_mean(values))
        return tff.federated_mean(tff.federated_map(squared_deviation, (values, mean)))

    values = [1.0, 2.0, 3.0, 6.0]
    with runtime.computing_on(worker, 2):
        assert variance(values) == pytest.approx(np.var(values), abs=1e-6)


def test_a_value_for_each_client_comes_back_for_each(worker):
    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def doubles(values):
        return tff.federated_map(double, values)

    with runtime.computing_on(worker, 2):
        assert list(doubles([1, 2, 3, 4, 5])) == [2, 4, 6, 8, 10]


def test_the_cores_are_those_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    assert 1 <= worker_binary.available_cores() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert worker_binary.available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
