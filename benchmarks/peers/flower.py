"""Federated averaging with Flower: PyTorch clients in its Ray simulation, and its FedAvg strategy.

    python -m benchmarks.peers.flower

Fastest: one CPU and one thread for each of Ray's processes (35 % over one process with two threads), clients' tensors
    kept in the process, no federated evaluation, freed memory kept (about 12 %), `channels_last`. A round includes
    Flower's own polling for messages (every 0.1 s), as for any user of its simulation.
"""

import logging
import os

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}

import flwr
import ray
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks import workload
from benchmarks.peers import check, torch_cnn

CORES = len(os.sched_getaffinity(0))
WORK = torch_cnn.WORK
CLIENT_CPUS = 1

client_app = ClientApp()
server_app = ServerApp()
faults: list[SystemExit] = []


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """One client's round, in one of Ray's processes."""
    torch_cnn.set_up(CLIENT_CPUS)
    model = torch_cnn.build()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = torch_cnn.clients()[context.node_config["partition-id"]]
    visited = torch_cnn.train(model, x, y)
    metrics = MetricRecord({"num-examples": len(x), "visited": visited})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """Runs a round of the strategy whenever the benchmark asks for one."""
    del context
    torch.manual_seed(0)
    arrays = ArrayRecord(torch_cnn.build().state_dict())
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=WORK.clients)

    def run_round() -> int:
        nonlocal arrays
        result = strategy.start(grid, arrays, num_rounds=1)
        arrays = result.arrays
        # The strategy averages the metrics; its clients all have the same number of examples.
        return round(result.train_metrics_clientapp[1]["visited"] * WORK.clients)

    try:
        check.check_training(
            run_round, lambda: [array.numpy().copy() for array in arrays.to_torch_state_dict().values()]
        )
    except SystemExit as fault:  # which would end only Flower's thread
        faults.append(fault)
        return
    workload.serve(run_round, flwr=flwr.__version__, ray=ray.__version__, torch=torch.__version__)


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.ERROR)
    run_simulation(
        server_app,
        client_app,
        num_supernodes=WORK.clients,
        backend_config={
            "client_resources": {"num_cpus": CLIENT_CPUS},
            "init_args": {"num_cpus": CORES, "logging_level": "error", "log_to_driver": False},
        },
    )
    if faults:
        raise faults[0]
