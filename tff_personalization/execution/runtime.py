"""TFF's execution context for one machine: starts, restarts and ends its worker process.

TFF does the federated work in a child process, `worker_binary`. This module starts it instead of TFF, for three
reasons. It has the settings that were measured to be fastest: one thread for each client, and one client for each core.
Its log goes to a file. It always ends with this process.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import grpc
import portpicker
import tensorflow_federated as tff
from absl import logging

from tff_personalization import errors
from tff_personalization.execution import child_processes, connections, in_parts, watchdog, worker_binary

_START_SECONDS = 60.0
# A computation is given up when the worker has ended this often.
_MOST_RESTARTS = 3
_OUT_OF_MEMORY = ("OOM when allocating", "Unexpected error in RPC handling", "Server Threadpool Exhausted")
# With the paper's network TFF's worker holds about 20 MB for each client of a call.
CLIENTS_PER_CALL = 50


def return_free_memory() -> None:
    """Returns freed memory of this process to the operating system, if the C library can (glibc).

    The buffers of a round are large and have many sizes. Without this, the heap between them grows for hours.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class Worker:
    """The worker process. It starts at once, is restarted if it dies, and ends with this process."""

    def __init__(self, cores: int, threads_per_client: int, log: IO[bytes] | None, require_closed: bool = False):
        """Starts the worker.

        Args:
            cores: clients that are computed at once.
            threads_per_client: threads that one operation of a client may use.
            log: the file for the worker's output; None for this process's standard error.
            require_closed: whether to refuse a worker that others can reach through the network.

        Raises:
            UserError: others could reach it, or loopback is down.
        """
        self._require_closed = require_closed
        self._closed: child_processes.Closed | None = None
        self._cores = cores
        self._threads_per_client = threads_per_client
        self._log = log
        self._process: subprocess.Popen | None = None
        self._stub: tff.framework.RemoteExecutorGrpcStub | None = None
        self._answered = False
        self._restarts = 0
        self._context = in_parts.worker_context(lambda cardinalities: remote_executor(self.stub(), cardinalities))
        self._watchdog = watchdog.Watchdog(lambda: self._process)
        atexit.register(self.stop)
        self._start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def attempt(self, compute: Callable[[list[tff.framework.AsyncContext]], Any]) -> Any:
        """See `in_parts.Workers`. A worker that is out of memory or hangs is killed, and a new one computes again."""
        self._restarts = 0
        while True:
            try:
                with self._watchdog.waiting():
                    return compute([self._context])
            except grpc.RpcError as error:
                if not is_out_of_memory(error):
                    raise
                self._restart("because it seems to be out of memory")

    def stub(self) -> tff.framework.RemoteExecutorGrpcStub:
        """A connection to a worker that answers. Starts a new worker if the last one has ended.

        TFF asks for it when a computation begins, and again after the connection broke. So a round during which the
        worker is killed is computed again.

        Raises:
            UserError: no worker can be started, or it ended too often during one computation.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if self._process is None or self._stub is None:
                self._start()
            elif self._process.poll() is not None:
                self._restart(f"with status {self._process.returncode}")
            elif self._answered or self._stub.is_ready:
                self._answered = True  # A connection that was idle for long is not ready until it is used.
                return self._stub
            elif time.monotonic() > deadline:
                self.stop()
                raise errors.UserError(
                    f"TFF's worker process {worker_binary.PATH} does not answer: see worker.log in the run directory."
                )
            else:
                time.sleep(0.05)

    def _restart(self, how: str) -> None:
        """Replaces a worker that ended or must end by a new one, unless that happens too often."""
        self.stop()
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS:
            raise errors.UserError(
                f"TFF's worker process {worker_binary.PATH} ended {self._restarts} times during one computation, "
                f"the last time {how}: see worker.log in the run directory; if memory ran out (status -9), give fewer "
                "--cores. Run the same command again to resume from the last round; a smaller "
                "--clients_per_call also helps, but starts a new run."
            )
        logging.warning("TFF's worker process ended unexpectedly (%s); starting another.", how)
        self._start()

    def _start(self) -> None:
        """Starts the process, which answers a second later."""
        self._answered = False
        try:
            command, environment = worker_binary.command(child_processes.PORT, self._cores, self._threads_per_client)
            self._closed = child_processes.Closed(command, environment, self._log or sys.stderr)
            self._process, target = self._closed.process, self._closed.target
        except child_processes.NotClosed as reason:
            self._process, target = self._start_open(str(reason))
        self._stub = tff.framework.RemoteExecutorGrpcStub(connections.channel(target))

    def _start_open(self, reason: str) -> tuple[subprocess.Popen, str]:
        """Starts the process on a port of all network interfaces, and returns it with its address."""
        if self._require_closed:
            raise errors.UserError(
                f"--require_closed_worker: TFF's worker cannot be isolated from the network here ({reason}): run on "
                "a machine with user and network namespaces; or, if nobody else can reach this one, without this flag."
            )
        connections.check_loopback()
        _warn_of_open_worker(reason)
        port = portpicker.pick_unused_port()
        command, environment = worker_binary.command(port, self._cores, self._threads_per_client)
        process = subprocess.Popen(
            child_processes.ending_with_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=self._log or sys.stderr,
            stderr=self._log or sys.stderr,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process to handle.
        )
        return process, f"127.0.0.1:{port}"

    def stop(self) -> None:
        """Ends the worker and waits for it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._closed is not None:
            self._closed.close()
        self._closed = None
        self._process = None
        self._stub = None


def is_out_of_memory(error: grpc.RpcError) -> bool:
    """Whether a worker's error says that it is out of memory.

    TensorFlow says so itself. gRPC calls a C++ exception in the worker (usually bad_alloc) "unexpected", and says that
    threads are "exhausted" if there is no memory for another one.
    """
    details = error.details() if isinstance(error, grpc.Call) else str(error)
    return any(words in (details or "") for words in _OUT_OF_MEMORY)


@functools.cache
def _warn_of_open_worker(reason: str) -> None:
    """Warns once, not at each start."""
    logging.warning(
        "TFF's worker cannot be isolated from the network here (%s): it listens on a port of all interfaces; "
        "--require_closed_worker would refuse to run here.",
        reason,
    )


def remote_executor(stub: tff.framework.RemoteExecutorGrpcStub, cardinalities: dict) -> tff.framework.RemoteExecutor:
    """An executor for a number of clients, at the other end of a connection."""
    cardinalities.setdefault(tff.CLIENTS, 0)
    remote = tff.framework.RemoteExecutor(stub)
    remote.set_cardinalities(cardinalities)
    return remote


@contextlib.contextmanager
def execution_context(
    cores: int = 0,
    log: IO[bytes] | None = None,
    threads_per_client: int = 1,
    clients_per_call: int = CLIENTS_PER_CALL,
    require_closed: bool = False,
) -> Iterator[Worker]:
    """A context in which TFF computes on a local worker. Enter it on the main thread.

    Args:
        cores: clients computed at once; 0 for all available cores.
        log: the file for the worker's output; None for standard error.
        threads_per_client: more than one is faster only if clients are computed one at a time.
        clients_per_call: a computation over more clients than this is split into parts, if possible.
        require_closed: whether to refuse a worker that others can reach through the network.

    Yields:
        The worker. It ends with the context, and always with this process.
    """
    worker = Worker(cores or worker_binary.available_cores(), threads_per_client, log, require_closed)
    try:
        with computing_on(worker, clients_per_call):
            yield worker
    finally:
        worker.stop()


@contextlib.contextmanager
def computing_on(workers: in_parts.Workers, clients_per_call: int = CLIENTS_PER_CALL) -> Iterator[None]:
    """A context in which TFF computes on some workers. Enter it on the main thread."""
    with tff.framework.get_context_stack().install(in_parts.Context(workers, clients_per_call)):
        yield
