"""Federated averaging as a plain PyTorch loop: one process with all cores as threads, or a process for each core.

    python -m benchmarks.peers.pytorch [--processes]

Fastest: `channels_last` (about 10 % more examples/s), in-place ReLUs, PyTorch's default SGD, data as tensors in memory,
    freed memory kept (about 6 % with processes, nothing with threads). Equal within noise: fused, foreach and
    hand-written SGD, transparent huge pages, OMP's active waiting. Slower: `torch.compile` (by a quarter).
"""

import contextlib
import multiprocessing
import os
import sys
from multiprocessing.connection import Connection

import numpy as np
import torch

from benchmarks import workload
from benchmarks.peers import check, torch_cnn

CORES = len(os.sched_getaffinity(0))


class Trainer:
    """Trains some of the clients, one by one, and sums their weighted deltas."""

    def __init__(self, threads: int, clients: slice) -> None:
        torch_cnn.set_up(threads)
        self._model = torch_cnn.build()
        self._clients = torch_cnn.clients()[clients]

    @torch.no_grad()
    def weighted_deltas(self, weights: list[np.ndarray]) -> tuple[list[np.ndarray], int, int]:
        """The sum of examples × delta for each weight, the sum of examples, and the number of visits."""
        initial = [torch.from_numpy(array) for array in weights]
        total = [torch.zeros_like(array) for array in initial]
        examples = visited = 0
        parameters = list(self._model.parameters())
        for x, y in self._clients:
            for parameter, array in zip(parameters, initial, strict=True):
                parameter.copy_(array)
            with torch.enable_grad():
                visited += torch_cnn.train(self._model, x, y)
            for array, parameter, start in zip(total, parameters, initial, strict=True):
                array.add_(parameter - start, alpha=len(x))
            examples += len(x)
        return [array.numpy() for array in total], examples, visited


def _process(core: int, pipe: Connection) -> None:
    trainer = Trainer(1, slice(core, None, CORES))
    with contextlib.suppress(EOFError):  # the parent has ended
        while True:
            pipe.send(trainer.weighted_deltas(pipe.recv()))


def _processes() -> list[Connection]:
    spawn = multiprocessing.get_context("spawn")
    pipes = []
    for core in range(CORES):
        here, there = spawn.Pipe()
        spawn.Process(target=_process, args=(core, there), daemon=True).start()
        there.close()
        pipes.append(here)
    return pipes


def main(arguments: list[str]) -> None:
    torch.manual_seed(0)
    weights = [parameter.detach().numpy().copy() for parameter in torch_cnn.build().parameters()]
    if arguments == ["--processes"]:
        pipes = _processes()

        def results() -> list[tuple[list[np.ndarray], int, int]]:
            for pipe in pipes:
                pipe.send(weights)
            return [pipe.recv() for pipe in pipes]
    else:
        trainer = Trainer(CORES, slice(None))

        def results() -> list[tuple[list[np.ndarray], int, int]]:
            return [trainer.weighted_deltas(weights)]

    def run_round() -> int:
        nonlocal weights
        deltas, examples, visited = zip(*results(), strict=True)
        weights = [w + sum(parts) / sum(examples) for w, parts in zip(weights, zip(*deltas, strict=True), strict=True)]
        return sum(visited)

    check.check_training(run_round, lambda: weights)
    workload.serve(run_round, torch=torch.__version__)


if __name__ == "__main__":
    main(sys.argv[1:])
