"""Coroutines run in one event loop, with a thread that is started once."""

import asyncio
import threading

import pytest

from tff_personalization.records import coroutines


async def _in_a_thread(function):
    return await asyncio.get_running_loop().run_in_executor(None, function)


def test_all_of_them_use_one_thread_besides_the_callers():
    threads = {coroutines.wait_for(_in_a_thread(threading.get_ident)) for _ in range(3)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_one_that_fails_does_not_hinder_the_next():
    with pytest.raises(ZeroDivisionError):
        coroutines.wait_for(_in_a_thread(lambda: 1 / 0))
    assert coroutines.wait_for(_in_a_thread(lambda: 2)) == 2
