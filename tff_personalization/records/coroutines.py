"""Waits for the coroutines of TFF's managers of files, all in one event loop with one thread that is started once.

`asyncio.run` would start a thread for each call; in a process that can get no more memory, Python waits for such a
thread for ever.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


def start() -> None:
    """Starts the thread, if it is not there: before memory can run out."""
    _runner()


def wait_for(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Runs a coroutine to its end, from the program's main thread, and returns its result."""
    with contextlib.closing(coroutine):  # if there is no memory to run it
        return _runner().run(coroutine)


@functools.cache
def _runner() -> asyncio.Runner:
    runner = asyncio.Runner()
    thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="files")
    thread.submit(int).result()  # starts it
    runner.get_loop().set_default_executor(thread)
    return runner
