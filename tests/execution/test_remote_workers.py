"""Workers at the other end of a network: work is spread, and continues when one is killed, hangs, or returns."""

import contextlib
import json
import signal
import subprocess
import threading
import time
import types

import grpc
import numpy as np
import portpicker
import psutil
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import setups
from tests.execution import test_runtime
from tff_personalization import errors
from tff_personalization.algorithms import fed_avg
from tff_personalization.execution import child_processes, remote_workers, runtime, worker_binary
from tff_personalization.models import emnist_cnn


class Machines:
    """Workers on ports of this machine."""

    def __init__(self, log, count):
        self._log = log
        self.addresses = [f"localhost:{portpicker.pick_unused_port()}" for _ in range(count)]
        self.processes = {}

    def start_all(self):
        """Starts those that are not running."""
        for address in self.addresses:
            if address not in self.processes or self.processes[address].poll() is not None:
                self.start(address)

    def start(self, address):
        command, environment = worker_binary.command(int(address.rsplit(":")[-1]), 1, 1)
        self.processes[address] = subprocess.Popen(
            child_processes.ending_with_parent(command), env=environment, stdout=self._log, stderr=self._log
        )

    def send(self, number, signal_number):
        self.processes[self.addresses[number]].send_signal(signal_number)

    def stop(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def _machines(tmp_path_factory):
    with (tmp_path_factory.mktemp("workers") / "workers.log").open("wb") as log:
        made = Machines(log, 3)
        yield made
        made.stop()


@pytest.fixture
def machines(_machines, monkeypatch):
    """Three workers that run."""
    monkeypatch.setattr(remote_workers, "PING_SECONDS", 0.3)
    monkeypatch.setattr(remote_workers, "PING_DEADLINE_SECONDS", 5.0)
    _machines.start_all()
    return _machines


def assert_as_on_one_machine(outputs, expected):
    for a, b in zip(tf.nest.flatten(outputs), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def two_rounds(process):
    state = process.initialize()
    for _ in range(2):
        output = process.next(state, test_runtime.five_clients_of_a_softmax_regression())
        state = output.state
    return output


def test_rounds_are_those_of_one_machine(machines, worker):
    model = emnist_cnn.build_linear(3, np.random.default_rng(1))
    setup = setups.setup(fed_avg, model, server=setups.sgd(1.0, 0.9), local_epochs=2, shuffle=True)
    process = fed_avg.build_fed_avg(setup)
    with runtime.computing_on(worker):
        expected = two_rounds(process)
    with remote_workers.execution_context(machines.addresses):
        assert_as_on_one_machine(two_rounds(process), expected)


@tff.tensorflow.computation(np.int32)
def square(x):
    return x * x


@tff.federated_computation(tff.FederatedType(np.int32, tff.SERVER), tff.FederatedType(np.int32, tff.CLIENTS))
def squares_and_offset(offset, values):
    pairs = tff.federated_zip((tff.federated_broadcast(offset), values))
    add = tff.tensorflow.computation(lambda a, b: a + b * b, (np.int32, np.int32))
    return tff.federated_map(add, pairs)


def test_values_of_clients_come_back_in_their_order(machines):
    with remote_workers.execution_context(machines.addresses):
        for count in (1, 2, 5, 17):
            values = list(range(count))
            assert list(squares_and_offset(100, values)) == [100 + value * value for value in values]


@contextlib.contextmanager
def fault(machines, number, signal_number, after=0.5):
    timer = threading.Timer(after, machines.send, (number, signal_number))
    timer.start()
    yield
    timer.join()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_a_worker_lost_during_a_computation_is_done_without_and_used_again_when_it_is_back(
    machines, signal_number, caplog
):
    address = machines.addresses[1]
    with remote_workers.execution_context(machines.addresses) as workers:
        assert test_runtime.sum_of_doubles([1, 2, 3]) == 12
        with fault(machines, 1, signal_number):
            started = time.monotonic()
            assert test_runtime.slow_sum_of_doubles(list(range(6))) == 30
            assert time.monotonic() - started < 90
        assert f"Worker {address} does not answer" in caplog.text
        assert [remote.context is None for remote in workers._remotes] == [False, True, False]
        if signal_number == signal.SIGKILL:
            machines.processes[address].wait()
            machines.start(address)
        else:
            machines.send(1, signal.SIGCONT)
        deadline = time.monotonic() + 30
        while workers._remotes[1].context is None:
            assert time.monotonic() < deadline, "the worker is not used again"
            time.sleep(0.1)
        assert test_runtime.sum_of_doubles([1, 2, 3, 4]) == 20


def test_when_none_is_left_it_says_so_after_a_while(machines, monkeypatch):
    monkeypatch.setattr(remote_workers, "PATIENCE_SECONDS", 2.0)
    with remote_workers.execution_context(machines.addresses):
        for number in range(3):
            machines.send(number, signal.SIGKILL)
        with pytest.raises(errors.UserError, match=r"none of .* has answered for 2 s.*to resume"):
            test_runtime.sum_of_doubles([1, 2, 3])


def test_an_address_where_no_worker_is_is_named(monkeypatch):
    monkeypatch.setattr(remote_workers, "PING_DEADLINE_SECONDS", 1.0)
    monkeypatch.setattr(remote_workers, "PING_SECONDS", 0.1)
    nobody = f"localhost:{portpicker.pick_unused_port()}"
    with pytest.raises(errors.UserError, match=f"--workers: {nobody} does not answer"):
        remote_workers.RemoteWorkers([nobody])


def test_an_error_of_the_computation_itself_is_not_taken_for_a_lost_worker(machines):
    @tff.tensorflow.computation(np.int32)
    def fail(x):
        with tf.control_dependencies([tf.debugging.assert_less(x, 0)]):
            return tf.identity(x)

    failing = tff.federated_computation(
        lambda values: tff.federated_sum(tff.federated_map(fail, values)), tff.FederatedType(np.int32, tff.CLIENTS)
    )
    with remote_workers.execution_context(machines.addresses), pytest.raises(Exception, match="assert"):
        failing([1, 2, 3])


def test_a_worker_that_answers_and_has_no_memory_left_is_one_line_that_names_it(monkeypatch):
    workers = remote_workers.RemoteWorkers([])
    workers._remotes = [
        types.SimpleNamespace(address=address, context=address, answers=lambda: True) for address in ("a:1", "b:2")
    ]
    monkeypatch.setattr(remote_workers.time, "sleep", lambda _: pytest.fail("waits"))

    def fail(words):
        def compute(contexts):
            raise grpc.RpcError(words)

        return compute

    with pytest.raises(errors.UserError, match=r"--workers: memory ran out on a:1 or b:2: .*fewer cores.*to resume"):
        workers.attempt(fail("OOM when allocating tensor"))
    with pytest.raises(grpc.RpcError, match="of another kind"):
        workers.attempt(fail("of another kind"))


def test_a_worker_that_is_lost_while_it_is_asked_for_is_not_used():
    class Leaves:
        """Is there when it is first looked at, and then gone."""

        def __init__(self):
            self.address, self._contexts = "a:1", ["here"]

        @property
        def context(self):
            return self._contexts.pop() if self._contexts else None

    workers = remote_workers.RemoteWorkers([])
    workers._remotes = [types.SimpleNamespace(address="b:2", context="there"), Leaves()]
    assert workers.attempt(list) == ["there", "here"]


def test_a_run_on_workers_is_that_of_one_machine(machines, run):
    summaries, used = [], []
    for name, more in (("here", {}), ("there", {"workers": machines.addresses})):
        directory = run(run_name=name, rounds=8, **more)
        summaries.append(json.loads((directory / "summary.json").read_text()))
        used.append(sum(sum(psutil.Process(p.pid).cpu_times()[:2]) for p in machines.processes.values()))
    assert used[1] > used[0] + 0.1  # the workers have computed the second run
    here, there = summaries
    for kind in ("initial_accuracy", "personalized_accuracy"):
        assert here[kind]["mean"] == pytest.approx(there[kind]["mean"], abs=0.02)
