"""TFF workers on other machines: spreads clients over them, and handles workers that are lost or return.

Each worker is one of TFF's `worker_binary` processes; `python -m tff_personalization.execution.worker` starts one.
TFF's call to a worker that hangs or is lost never returns. So each worker is asked for a sign of life every few
seconds, on a separate connection. If it does not answer, its connection for work is closed, which ends the calls that
wait for it. The remaining workers then repeat the computation. A worker that returns is used from the next computation
on.

Parts of a round are merged in the order in which they finish. So sums of floats differ in their last digits from run to
run.
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import tensorflow_federated as tff
from absl import logging
from tensorflow_federated.proto.v0 import executor_pb2, executor_pb2_grpc
from tensorflow_federated.python.common_libs import async_utils

from tff_personalization import errors
from tff_personalization.execution import connections, in_parts, runtime

PING_SECONDS = 2.0
"""Between one sign of life and the next question for one."""
PING_DEADLINE_SECONDS = 10.0
"""A worker that has not answered for so long is lost."""
PATIENCE_SECONDS = 60.0
"""How long to wait when no worker answers."""
_MOST_ATTEMPTS = 5
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class _Lost(Exception):
    """A worker was lost."""


class _InItsThread(tff.framework.AsyncContext):
    """A context that waits for its worker in its own thread, because TFF's calls block their thread."""

    def __init__(self, context: tff.framework.AsyncExecutionContext):
        self._context = context
        self._runner = async_utils.AsyncThreadRunner()

    async def invoke(self, comp: tff.Computation, arg: Any) -> Any:
        return await self._runner.await_coro_and_return_result(self._context.invoke(comp, arg))


class _Remote:
    """One worker, and the thread that watches it."""

    def __init__(self, address: str):
        self.address = address
        self.context: tff.framework.AsyncContext | None = None
        self._channel: grpc.Channel | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            answers = self.answers()
            if answers and self.context is None:
                self._connect()
            elif not answers and self.context is not None:
                logging.warning("Worker %s does not answer; continuing without it.", self.address)
                self._disconnect()
            self._stopping.wait(PING_SECONDS)
        self._disconnect()

    def answers(self) -> bool:
        """Whether the worker gives a sign of life."""
        with connections.channel(self.address) as channel:
            # No executor has this name; an answer that says so is a sign of life.
            request = executor_pb2.DisposeExecutorRequest(executor=executor_pb2.ExecutorId(id="none"))
            try:
                executor_pb2_grpc.ExecutorGroupStub(channel).DisposeExecutor(request, timeout=PING_DEADLINE_SECONDS)
            except grpc.RpcError as error:
                return error.code() not in _GONE
        return True

    def _connect(self) -> None:
        channel = connections.channel(self.address)
        stub = tff.framework.RemoteExecutorGrpcStub(channel)
        deadline = time.monotonic() + PING_DEADLINE_SECONDS
        while not stub.is_ready:
            if time.monotonic() > deadline:
                channel.close()
                return
            time.sleep(0.05)
        self._channel = channel
        self.context = _InItsThread(in_parts.worker_context(functools.partial(self._executor, channel, stub)))
        logging.info("Worker %s answers.", self.address)

    def _executor(
        self, channel: grpc.Channel, stub: tff.framework.RemoteExecutorGrpcStub, cardinalities: dict
    ) -> tff.framework.RemoteExecutor:
        if channel is not self._channel:
            raise _Lost(self.address)  # ends TFF's own attempts, which would continue forever
        return runtime.remote_executor(stub, cardinalities)

    def _disconnect(self) -> None:
        channel, self._channel, self.context = self._channel, None, None
        if channel is not None:
            channel.close()

    def stop(self) -> None:
        """Stops watching and closes the connection."""
        self._stopping.set()
        self._thread.join(timeout=PING_DEADLINE_SECONDS + PING_SECONDS)


class RemoteWorkers:
    """Workers on other machines, as `in_parts.Workers`."""

    def __init__(self, addresses: Sequence[str]):
        """Connects to the workers, which have addresses of the form host:port.

        Raises:
            UserError: one of them does not answer.
        """
        self._remotes = [_Remote(address) for address in addresses]
        deadline = time.monotonic() + PING_DEADLINE_SECONDS + PING_SECONDS
        while missing := [remote.address for remote in self._remotes if remote.context is None]:
            if time.monotonic() > deadline:
                self.stop()
                proxy = connections.proxy_to(missing[0])
                way = f" through the proxy {proxy} (give no_proxy={missing[0].rpartition(':')[0]})" if proxy else ""
                raise errors.UserError(
                    f"--workers: {missing[0]} does not answer{way}: start a worker there (make worker), or leave it "
                    "out."
                )
            time.sleep(0.05)

    def attempt(self, compute: Callable[[list[tff.framework.AsyncContext]], Any]) -> Any:
        """See `in_parts.Workers`.

        Raises:
            UserError: no worker answered for `PATIENCE_SECONDS`, workers were lost in several attempts in a row, or a
                worker is out of memory.
        """
        for _ in range(_MOST_ATTEMPTS):
            used = self._wait_for_some()
            try:
                return compute(list(used.values()))
            except errors.UserError:
                raise
            except Exception as error:
                if self._any_lost(used):
                    continue
                if not isinstance(error, grpc.RpcError) or not runtime.is_out_of_memory(error):
                    raise
                raise errors.UserError(
                    f"--workers: memory ran out on {' or '.join(used)}: stop other programs there, or start workers "
                    "with fewer cores (make worker FLAGS=--cores=N). Run the same command again to resume "
                    "from the last round; a smaller --clients_per_call also helps, but "
                    "starts a new run."
                ) from error
        raise errors.UserError(
            f"--workers: workers were lost in {_MOST_ATTEMPTS} attempts at one computation. Run the same command "
            "again to resume from the last round."
        )

    def present(self) -> int:
        """How many workers answer."""
        return sum(remote.context is not None for remote in self._remotes)

    def _wait_for_some(self) -> dict[str, tff.framework.AsyncContext]:
        """The contexts of the workers that answer, by address, as soon as there is one."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        # Each context is read once: the thread that watches the worker may take it away.
        while not (present := {r.address: context for r in self._remotes if (context := r.context) is not None}):
            if time.monotonic() > deadline:
                raise errors.UserError(
                    f"--workers: none of {', '.join(remote.address for remote in self._remotes)} has answered for "
                    f"{PATIENCE_SECONDS:g} s. Run the same command again to resume from the last round."
                )
            time.sleep(0.1)
        return present

    def _any_lost(self, used: dict[str, Any]) -> bool:
        """Whether a worker in use was lost. Waits until a loss would be noticed, unless all of them answer now."""
        remotes = [remote for remote in self._remotes if remote.address in used]
        patience = 0.0 if all(remote.answers() for remote in remotes) else PING_DEADLINE_SECONDS + 2 * PING_SECONDS
        deadline = time.monotonic() + patience
        while not (lost := any(remote.context is not used[remote.address] for remote in remotes)):
            if time.monotonic() >= deadline:
                break
            time.sleep(0.1)
        return lost

    def stop(self) -> None:
        """Closes all connections. The workers continue."""
        for remote in self._remotes:
            remote.stop()


@contextlib.contextmanager
def execution_context(
    addresses: Sequence[str], clients_per_call: int = runtime.CLIENTS_PER_CALL
) -> Iterator[RemoteWorkers]:
    """A context in which TFF computes on workers on other machines. Enter it on the main thread."""
    workers = RemoteWorkers(addresses)
    try:
        with runtime.computing_on(workers, clients_per_call):
            yield workers
    finally:
        workers.stop()
