"""TFF's worker program: its path, its command and its number of cores. Does not import TFF."""

import importlib.util
import os
import pathlib

_TFF = importlib.util.find_spec("tensorflow_federated")
PATH = pathlib.Path((_TFF and _TFF.origin) or "").parent / "data" / "worker_binary"


def available_cores() -> int:
    """The number of cores that this process may use: the scheduler's affinity, limited by the container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # No cgroup of version 2, or no quota ("max").
    return cores


def command(port: int, cores: int, threads_per_client: int) -> tuple[list[str], dict[str, str]]:
    """The command of TFF's worker, and its environment. One thread a client and one client a core are fastest."""
    arguments = [str(PATH), f"--port={port}", f"--max_concurrent_computation_calls={cores}"]
    return arguments, {**os.environ, "TF_NUM_INTRAOP_THREADS": str(threads_per_client)}
