"""TFF's worker process: started, restarted, ended."""

import os
import pathlib
import signal
import time

import numpy as np
import pytest
import tensorflow_federated as tff

from tff_personalization import errors
from tff_personalization.programs import interruption, runtime


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


def test_the_cores_are_those_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    assert 1 <= runtime.available_cores() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert runtime.available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_at_once(number):

    def wait():
        os.kill(os.getpid(), number)
        time.sleep(5)

    with interruption.Interruption(), pytest.raises(errors.Interrupted) as interrupted:
        wait()
    assert interrupted.value.signal_number == number


def test_a_signal_is_postponed_until_files_are_written():
    written = []

    def write(interrupt):
        with interrupt.postponed():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            written.append("whole")
        written.append("never reached")

    with interruption.Interruption() as interrupt, pytest.raises(errors.Interrupted):
        write(interrupt)
    assert written == ["whole"]


def test_signals_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with interruption.Interruption():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
