"""Starts a TFF worker that runs elsewhere can use: `run_experiment.py --workers=this-machine:8000,…`

    python -m tff_personalization.execution.worker --port=8000                       # through a tunnel: docs/scaling.md
    python -m tff_personalization.execution.worker --port=8000 --address=10.0.0.5    # on that network

It computes for anyone who connects, without authentication. So it listens only on the given address, by default this
machine's loopback. Give an address that only your own machines can reach.
"""

import signal
import socket
from collections.abc import Sequence

from absl import flags

from tff_personalization import errors, startup
from tff_personalization.execution import child_processes, worker_binary


def listening(address: str, port: int) -> socket.socket:
    """A socket that listens on an address of this machine, by name or number; UserError if that fails."""
    try:
        family, _, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        raise errors.UserError(
            f"--address={address} --port={port}: cannot be used ({error.strerror}): give an address of this "
            "machine and a free port."
        ) from error


def main(arguments: Sequence[str]) -> int:
    if len(arguments) > 1:
        raise errors.UserError(f"{arguments[1]!r} is not a flag: settings are given as --name=value (see --help).")
    given = flags.FLAGS
    cores = given.cores or worker_binary.available_cores()
    with listening(given.address, given.port) as listener:
        command, environment = worker_binary.command(child_processes.PORT, cores, given.threads_per_client)
        try:
            process = child_processes.start_closed(command, environment, None, listener)
        except child_processes.NotClosed as reason:
            raise errors.UserError(
                f"TFF's own worker listens on all network interfaces, and the kernel cannot isolate one here "
                f"({reason}): run it on a machine with user and network namespaces; or, if nobody else can reach this "
                f"one, start {worker_binary.PATH} --port={given.port} yourself."
            ) from reason
    print(f"A worker on {given.address}:{given.port}, {cores} clients at once, until it is stopped.", flush=True)
    try:
        return process.wait()
    finally:
        process.kill()


if __name__ == "__main__":
    flags.DEFINE_string("address", "127.0.0.1", "Address of this machine to listen on.")
    flags.DEFINE_integer("port", 8000, "Port to listen on.", lower_bound=1, upper_bound=65535)
    flags.DEFINE_integer("cores", 0, "Clients computed at once, one core each; 0: all cores.", lower_bound=0)
    flags.DEFINE_integer("threads_per_client", 1, "Threads for each client.", lower_bound=1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it has nothing to save, and the kernel ends the worker with it
    startup.run_main(main)
