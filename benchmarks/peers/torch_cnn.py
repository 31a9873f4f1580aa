"""Shared parts of the PyTorch peers: the paper's network, the clients' tensors and the local training."""

import ctypes
import functools

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import workload

WORK = workload.Workload()
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def set_up(threads: int) -> None:
    """Sets this process's threads, and makes the C library keep freed memory instead of returning it in each step."""
    torch.set_num_threads(threads)
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def build() -> nn.Sequential:
    """The CNN of `tff_personalization.models.emnist_cnn`, with its layers in the `channels_last` order."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(12 * 12 * 64, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(128, workload.NUM_CLASSES),
    ).to(memory_format=torch.channels_last)


@functools.cache
def clients() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images, float32 (n, 1, 28, 28) in [0, 1], and labels, int64 (n,), of each client, ready in memory."""
    return [
        (
            (torch.from_numpy(x).unsqueeze(1).float() / 255).contiguous(memory_format=torch.channels_last),
            torch.from_numpy(y).long(),
        )
        for x, y in WORK.cohort()
    ]


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    """Trains in place on one client's examples, and returns the number of visits."""
    optimizer = torch.optim.SGD(model.parameters(), lr=WORK.learning_rate)
    model.train()
    visited = 0
    for _ in range(WORK.local_epochs):
        for batch in torch.randperm(len(x)).split(WORK.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            visited += len(batch)
    return visited
