"""Waits for the coroutines of TFF's file managers, in one event loop with one thread.

`asyncio.run` would start a thread for each call. If there is no memory for that thread, Python waits for it forever.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def start() -> None:
    """Starts the thread if it is not running. Call this before memory can run out."""
    _runner()


def wait_for(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Runs a coroutine to its end and returns its result. Call it from the main thread."""
    with contextlib.closing(coroutine):  # if there is no memory to run it
        return _runner().run(coroutine)


@functools.cache
def _runner() -> asyncio.Runner:
    runner = asyncio.Runner()
    thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="files")
    thread.submit(int).result()  # starts it
    runner.get_loop().set_default_executor(thread)
    return runner
