"""Federated averaging with pfl-research: its PyTorch model, FederatedAveraging and simulated backend.

    python -m benchmarks.peers.pfl_research [--processes]

With --processes, pfl-research's own process group (gloo) has one process with one thread for each core, and distributes
the users. It was 20 to 40 % faster than one process with all cores as threads. Layout, data and memory are as in
`pytorch`; `channels_last` gained 13 %, and keeping freed memory 5 to 25 %. Nothing is evaluated after the first round.
Batches are made once and not shuffled again in each epoch, as in pfl-research's datasets, which favours it a little.
"""

import os
import socket
import subprocess
import sys

import torch
from torch.nn import functional as F

from benchmarks import workload
from benchmarks.peers import check, torch_cnn

CORES = len(os.sched_getaffinity(0))
WORK = torch_cnn.WORK


class Network(torch.nn.Module):
    """The CNN with the loss and the metrics that pfl-research requires."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch_cnn.build()
        self.visited = 0

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.train()
        self.visited += len(y)
        return F.cross_entropy(self.layers(x), y)

    def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict:
        del x, y
        return {}


def _start_others() -> list[subprocess.Popen]:
    """Makes this process the first of a group of one for each core, as `torchrun` would, and starts the others."""
    if "RANK" in os.environ:
        return []
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    os.environ |= {"TORCHELASTIC_RUN_ID": "peer", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ |= {"WORLD_SIZE": str(CORES), "LOCAL_WORLD_SIZE": str(CORES), "RANK": "0", "LOCAL_RANK": "0"}
    command = [sys.executable, "-m", "benchmarks.peers.pfl_research", "--processes"]
    return [
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, env=os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(1, CORES)
    ]


def main(arguments: list[str]) -> None:
    processes = arguments == ["--processes"]
    others = _start_others() if processes else []

    # Imported here since the import joins the process group.
    import pfl
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.data import FederatedDataset
    from pfl.data.dataset import Dataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.internal.ops import get_ops
    from pfl.model.pytorch import PyTorchModel

    torch_cnn.set_up(1 if processes else CORES)
    torch.manual_seed(0)
    network = Network()
    central_optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    model = PyTorchModel(network, torch.optim.SGD, central_optimizer)
    users = {str(index): Dataset(client, user_id=str(index)) for index, client in enumerate(torch_cnn.clients())}
    cohort = FederatedDataset(users.__getitem__, get_user_sampler("minimize_reuse", list(users)))
    backend = SimulatedBackend(cohort, cohort, postprocessors=[WeightByDatapoints()])
    algorithm = FederatedAveraging()
    training = NNTrainHyperParams(
        local_batch_size=WORK.batch_size, local_num_epochs=WORK.local_epochs, local_learning_rate=WORK.learning_rate
    )
    rounds = 0

    def run_round() -> int:
        nonlocal rounds
        if processes:
            torch.distributed.barrier()
        rounds += 1
        # The algorithm continues from its last iteration, and only iteration 0 evaluates.
        algorithm.run(
            NNAlgorithmParams(
                central_num_iterations=rounds,
                evaluation_frequency=sys.maxsize,
                train_cohort_size=WORK.clients,
                val_cohort_size=None,
            ),
            backend,
            model,
            training,
            send_metrics_to_platform=False,
        )
        visited, network.visited = network.visited, 0
        return int(get_ops().distributed.all_reduce([torch.tensor(float(visited))])[0]) if processes else visited

    if os.environ.get("RANK", "0") != "0":
        while True:  # until the first process ends this one
            run_round()
    try:
        check.check_training(run_round, lambda: [p.detach().numpy().copy() for p in network.parameters()])
        workload.serve(run_round, **{"pfl-research": pfl.__version__, "torch": torch.__version__})
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
