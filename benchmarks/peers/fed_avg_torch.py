"""FedAvg with server momentum, then fine-tuning of each test client, as a plain PyTorch loop with one thread.

    python -m benchmarks.peers.fed_avg_torch DATA.npz

`benchmarks.agreement` starts it and writes DATA.npz with the data and the settings. Only that file comes from the
project. The network is PyTorch's with Keras's initial weights (Glorot's uniform, biases 0); cohorts, batches and
dropout masks are its own. It writes a line of JSON for each test client to standard output.
"""

import json
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers import torch_cnn

Examples = tuple[torch.Tensor, torch.Tensor]


def _initialize(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def _train(model: nn.Module, examples: Examples, epochs: int, batch_size: int, learning_rate: float) -> None:
    x, y = examples
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()


@torch.no_grad()
def _correct(model: nn.Module, examples: Examples) -> int:
    model.eval()
    return int((model(examples[0]).argmax(dim=1) == examples[1]).sum())


@torch.no_grad()
def _copy(model: nn.Module, weights: list[torch.Tensor]) -> None:
    for parameter, weight in zip(model.parameters(), weights, strict=True):
        parameter.copy_(weight)


def _weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def fed_avg(model: nn.Module, clients: list[Examples], settings: dict, rng: np.random.Generator) -> list[torch.Tensor]:
    """The global weights after all rounds: FedAvg (McMahan et al., 2017) with momentum on the server."""
    weights = _weights(model)
    velocity = [torch.zeros_like(weight) for weight in weights]
    for round_number in range(1, settings["rounds"] + 1):
        cohort = [clients[i] for i in rng.choice(len(clients), settings["clients_per_round"], replace=False)]
        examples = sum(len(x) for x, _ in cohort)
        mean = [torch.zeros_like(weight) for weight in weights]
        for client in cohort:
            _copy(model, weights)
            _train(model, client, settings["local_epochs"], settings["batch_size"], settings["client_learning_rate"])
            for total, local, start in zip(mean, _weights(model), weights, strict=True):
                total.add_(local - start, alpha=len(client[0]) / examples)
        velocity = [settings["server_momentum"] * v + delta for v, delta in zip(velocity, mean, strict=True)]
        weights = [w + settings["server_learning_rate"] * v for w, v in zip(weights, velocity, strict=True)]
        if round_number % 20 == 0:
            print(f"round {round_number} of {settings['rounds']}", file=sys.stderr, flush=True)
    return weights


def main(path: str) -> None:
    with np.load(path) as arrays:
        settings = json.loads(str(arrays["settings"]))
        x = torch.from_numpy(arrays["x"]).unsqueeze(1).float() / 255
        y = torch.from_numpy(arrays["y"]).long()
        parts = {name: arrays[name].tolist() for name in ("train", "personalize", "test")}
    torch_cnn.set_up(1)
    torch.manual_seed(settings["seed"])
    x = x.contiguous(memory_format=torch.channels_last)
    examples = {name: [(x[a:b], y[a:b]) for a, b in bounds] for name, bounds in parts.items()}
    model = torch_cnn.build()
    _initialize(model)
    weights = fed_avg(model, examples["train"], settings, np.random.default_rng(settings["seed"]))
    for own, held_back in zip(examples["personalize"], examples["test"], strict=True):
        _copy(model, weights)
        initial = _correct(model, held_back)
        _train(
            model,
            own,
            settings["personalization_epochs"],
            settings["personalization_batch_size"],
            settings["personalization_learning_rate"],
        )
        line = {"initial": initial, "personalized": _correct(model, held_back), "test_examples": len(held_back[1])}
        print(json.dumps({**line, "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
