"""Federated averaging with FedJAX: its own algorithm, its EMNIST network, which is the workload's.

    python -m benchmarks.peers.fedjax [--jit]

Fastest, by 20 to 40 %: the `pmap` backend of `for_each_client` with each core as a device, which trains one client on
each core. With --jit: the `jit` backend, FedJAX's default, one client at a time on all cores. Data are arrays in
memory.
"""

import importlib.metadata
import os
import sys

if "--jit" not in sys.argv:
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}"
os.environ["JAX_PLATFORMS"] = "cpu"

import fedjax
import jax
import numpy as np
from fedjax.models import emnist

from benchmarks import workload
from benchmarks.peers import check

BACKEND = "jit" if "--jit" in sys.argv else "pmap"
WORK = workload.Workload()


def main() -> None:
    fedjax.set_for_each_client_backend(BACKEND)
    model = emnist.create_conv_model(only_digits=False)
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        fedjax.model_grad(model),
        fedjax.optimizers.sgd(WORK.learning_rate),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=WORK.batch_size, num_epochs=WORK.local_epochs),
    )
    visited = 0

    def count(batch):
        nonlocal visited
        visited += len(batch["y"])
        return batch

    preprocessor = fedjax.BatchPreprocessor([count])
    datasets = [
        fedjax.ClientDataset({"x": (x / np.float32(255))[..., np.newaxis], "y": y}, preprocessor)
        for x, y in WORK.cohort()
    ]
    rng, initial = jax.random.split(jax.random.PRNGKey(0))
    state = algorithm.init(model.init(initial))

    def run_round() -> int:
        nonlocal rng, state, visited
        visited = 0
        rng, *keys = jax.random.split(rng, 1 + WORK.clients)
        clients = [(index, *client) for index, client in enumerate(zip(datasets, keys, strict=True))]
        state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)
        return visited

    check.check_training(run_round, lambda: [np.array(leaf) for leaf in jax.tree_util.tree_leaves(state.params)])
    workload.serve(run_round, **{name: importlib.metadata.version(name) for name in ("fedjax", "jax", "jaxlib")})


if __name__ == "__main__":
    main()
