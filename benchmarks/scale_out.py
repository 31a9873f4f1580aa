"""Several workers, as on several machines: rounds on 1, 2 and 3 workers, and rounds in which one is lost.

    python -m benchmarks.scale_out --output_dir=benchmark_results

The workers are processes of this machine with one core each, reached through loopback. So the speed of three workers on
two cores shows the cost of spreading, not its gain. Then a worker is killed, stopped (like one that hangs), slowed
(stopped for half of the time) and started again while rounds continue. scale_out.csv has a row for each round: the
event, seconds, the number of workers afterwards, and the largest difference of a weight from the first round on one
worker.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import portpicker

from benchmarks import recording, tasks, workload
from tff_personalization.execution import child_processes, remote_workers, worker_binary

WORK = workload.Workload(clients=20, examples=180, local_epochs=5)
SEED = np.array([3, 4], np.int32)


class Worker:
    """A worker process that stands for one on another machine."""

    def __init__(self):
        self.port = portpicker.pick_unused_port()
        self.start()

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def start(self) -> None:
        command, environment = worker_binary.command(self.port, cores=1, threads_per_client=1)
        self._process = subprocess.Popen(
            child_processes.ending_with_parent(command),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def _slowed(worker: Worker) -> Iterator[None]:
    """Stops the worker for half of each tenth of a second."""
    done = threading.Event()

    def alternate():
        while not done.is_set():
            worker.send(signal.SIGSTOP)
            time.sleep(0.05)
            worker.send(signal.SIGCONT)
            time.sleep(0.05)

    thread = threading.Thread(target=alternate)
    thread.start()
    yield
    done.set()
    thread.join()


@contextlib.contextmanager
def _meanwhile(action, after: float) -> Iterator[None]:
    timer = threading.Timer(after, action)
    timer.start()
    yield
    timer.join()


def main() -> None:
    parser = recording.parser(__doc__, 3, "rounds on each number of workers")
    options = parser.parse_args()

    from tff_personalization import cohorts
    from tff_personalization.models import emnist_cnn

    model = emnist_cnn.build_cnn(workload.NUM_CLASSES, np.random.default_rng(0))
    process = tasks.fed_avg(model, WORK)
    cohort = WORK.cohort()
    machines = [Worker() for _ in range(3)]
    rows: list[dict] = []
    reference: list[np.ndarray] = []

    def run_round(event: str, workers: remote_workers.RemoteWorkers, state) -> None:
        started = time.perf_counter()
        output = process.next(state, [cohorts.client_value(*client, SEED) for client in cohort])
        seconds = time.perf_counter() - started
        weights = process.get_model_weights(output.state).trainable
        if not reference:
            reference.extend(weights)
        rows.append(
            {
                "event": event,
                "seconds": round(seconds, 2),
                "examples_per_second": round(WORK.visits / seconds, 1),
                "clients": int(output.metrics["client_work"]["clients"]),
                "workers_afterwards": workers.present(),
                "largest_difference": max(float(np.abs(a - b).max()) for a, b in zip(weights, reference, strict=True)),
            }
        )
        print(rows[-1], flush=True)

    for count in (1, 2, 3):
        with remote_workers.execution_context([machine.address for machine in machines[:count]]) as workers:
            state = process.initialize()
            process.next(state, [cohorts.client_value(*client, SEED) for client in cohort])  # to warm up
            for _ in range(options.repetitions):
                run_round(f"{count} workers", workers, state)
    with remote_workers.execution_context([machine.address for machine in machines]) as workers:
        state = process.initialize()
        run_round("3 workers, another start", workers, state)
        with _slowed(machines[2]):
            run_round("one slow (stopped for half of the time)", workers, state)
        with _meanwhile(machines[1].kill, after=1.0):
            run_round("one killed 1 s after the start", workers, state)
        run_round("the round after", workers, state)
        machines[1].start()
        _wait_for(workers, 3)
        run_round("started again", workers, state)
        with _meanwhile(lambda: machines[0].send(signal.SIGSTOP), after=1.0):
            run_round("one hung 1 s after the start", workers, state)
        machines[0].send(signal.SIGCONT)
        _wait_for(workers, 3)
        run_round("the round after that", workers, state)
    for machine in machines:
        machine.kill()
    table = pd.DataFrame(rows)
    print(table.groupby("event", sort=False)["examples_per_second"].median().to_string())
    recording.write(table, options.output_dir / "scale_out.csv")
    os._exit(0)  # TFF's threads would wait for lost workers


def _wait_for(workers: remote_workers.RemoteWorkers, count: int) -> None:
    deadline = time.monotonic() + 60
    while workers.present() < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{workers.present()} workers answer, {count} were expected")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
