"""Signals as an exception, at once or when files have been written, even if it gets lost on the way."""

import os
import signal
import time

import pytest

from tff_personalization import errors
from tff_personalization.execution import interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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


def test_a_second_signal_ends_a_write_that_does_not_end():
    received = []

    def write(interrupt):
        with interrupt.postponed():
            os.kill(os.getpid(), signal.SIGINT)
            received.append("first")
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
            received.append("never reached")

    with interruption.Interruption() as interrupt, pytest.raises(errors.Interrupted):
        write(interrupt)
    assert received == ["first"]


def test_signals_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with interruption.Interruption():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_a_program_under_nohup_does_not_end_with_its_terminal(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.Interruption():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_becomes_another_exception_on_its_way_leaves_as_the_interruption():
    def build(interrupt):
        del interrupt
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except errors.Interrupted as error:  # as C++ does between two calls of Python
            raise RuntimeError("MISMATCH of exception types") from error

    with pytest.raises(errors.Interrupted) as interrupted, interruption.Interruption() as interrupt:
        build(interrupt)
    assert interrupted.value.signal_number == signal.SIGINT


def test_what_is_lost_on_its_way_is_raised_where_files_are_written_next():
    written = []

    def work(interrupt):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except BaseException:
            pass  # as in a finalizer
        with interrupt.postponed():
            written.append("a round")
        written.append("never reached")

    with pytest.raises(errors.Interrupted), interruption.Interruption() as interrupt:
        work(interrupt)
    assert written == ["a round"]


def test_an_error_without_a_signal_is_that_error():
    with pytest.raises(RuntimeError, match="of its own"), interruption.Interruption():
        raise RuntimeError("of its own")
