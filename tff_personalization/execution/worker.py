"""Starts a TFF worker that runs elsewhere can use: `run_experiment.py --workers=this-machine:8000,…`

    python -m tff_personalization.execution.worker --port=8000

It computes for whoever connects, without asking who that is, on all of the machine's network interfaces: TFF's worker
has no other mode. Start it where only your own machines reach that port.
"""

import os
from collections.abc import Sequence

from absl import app, flags

from tff_personalization import errors, startup
from tff_personalization.execution import runtime


def main(arguments: Sequence[str]) -> int:
    if len(arguments) > 1:
        raise errors.UserError(f"{arguments[1]!r} is not a flag: settings are given as --name=value (see --help).")
    cores = flags.FLAGS.cores or runtime.available_cores()
    command, environment = runtime.worker_command(flags.FLAGS.port, cores, flags.FLAGS.threads_per_client)
    print(f"A worker on port {flags.FLAGS.port}, {cores} clients at once; it goes on until it is stopped.", flush=True)
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    flags.DEFINE_integer("port", 8000, "The port that it listens on.", lower_bound=1, upper_bound=65535)
    flags.DEFINE_integer("cores", 0, "Clients computed at once; 0: as many as the machine gives.", lower_bound=0)
    flags.DEFINE_integer("threads_per_client", 1, "Threads of one client's work.", lower_bound=1)
    app.run(startup.with_plain_errors(main), flags_parser=startup.parse_flags)
