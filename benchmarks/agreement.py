"""Checks that a plain PyTorch loop gives the same results as FedAvg with fine-tuning: same data, clients and protocol.

    python -m benchmarks.agreement RUN… --output=agreement.csv

Each RUN is a finished run of fed_avg with SGD on clients and server and fine-tuning by SGD, one for each seed. PyTorch
trains again with the run's settings, data, and train and test clients, but its own random choices. The table has a row
for each seed, framework and test client. Seeds that are in the table already are not made again. It prints each seed's
mean accuracies, and the difference of the frameworks' means with its standard error over seeds (Welch).
PyTorch's environment: python -m benchmarks.peers.environments pytorch.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks import recording  # isort: skip; before TensorFlow, which it keeps quiet

import numpy as np
import pandas as pd

from benchmarks.peers import environments
from tff_personalization import errors
from tff_personalization.records import finished_run, run_directory

SHOWN = {"initial": "initial accuracy", "personalized": "personalized accuracy"}


def settings_of(run: finished_run.FinishedRun) -> dict:
    """The settings of a run for the other framework. Raises UserError if the run has another protocol."""
    config = run.config["flags"]
    client, server, own = (config["optimizers"][role] for role in ("client", "server", "personalization"))
    plain = {
        "method": (config["method"], "fed_avg"),
        "model": (config["model"], "cnn"),
        "aggregator": (config["aggregator"], "mean"),
        "client_weighting": (config["client_weighting"], "examples"),
        "client_dropout_probability": (config["client_dropout_probability"], 0),
        "straggler_probability": (config["straggler_probability"], 0),
        **{f"{role}_optimizer": (config["optimizers"][role]["name"], "sgd") for role in config["optimizers"]},
        "client_sgd_momentum": (client["options"].get("momentum", 0), 0),
        "personalization_sgd_momentum": (own["options"].get("momentum", 0), 0),
    }
    for name, (is_, expected) in plain.items():
        if is_ != expected:
            raise errors.UserError(f"{run.directory}: --{name}={is_}, and PyTorch's loop has {expected}: give another.")
    return {
        **{name: config[name] for name in ("rounds", "clients_per_round", "local_epochs", "batch_size")},
        **{name: config[name] for name in ("personalization_epochs", "personalization_batch_size", "seed")},
        "client_learning_rate": client["learning_rate"],
        "server_learning_rate": server["learning_rate"],
        "server_momentum": server["options"].get("momentum", 0),
        "personalization_learning_rate": own["learning_rate"],
    }


def write_data(run: finished_run.FinishedRun, clients: list[str], path: pathlib.Path) -> None:
    """Writes a run's settings and examples to a file, as `benchmarks.peers.fed_avg_torch` reads them.

    `clients` are the test clients, in the order in which they are personalized.
    """
    data = run.data
    chosen = {"train": data.split.train, "personalize": clients, "test": clients}
    parts = {"train": data.train, "personalize": data.train, "test": data.test}
    x, y = [], []
    bounds: dict[str, list[tuple[int, int]]] = {name: [] for name in parts}
    begin = 0
    for name, part in parts.items():
        for client in chosen[name]:
            images, labels = part.examples(client)
            x.append(images)
            y.append(labels)
            bounds[name].append((begin, begin := begin + len(labels)))
    np.savez(path, x=np.concatenate(x), y=np.concatenate(y), settings=json.dumps(settings_of(run)), **bounds)


def ours(run: finished_run.FinishedRun) -> pd.DataFrame:
    """A row for each test client of a run: right examples before fine-tuning and after its last epoch."""
    assert run.clients is not None  # a FinishedRun has them
    table = run.clients[run.clients["strategy"] == "fine_tune"]
    right = table.pivot(index="client", columns="epoch", values="correct").astype(int)
    counts = table.groupby("client")["test_examples"].first()
    epochs = right.columns.max()
    return pd.DataFrame({"initial": right[0], "personalized": right[epochs], "test_examples": counts}).reset_index()


def theirs(run: finished_run.FinishedRun, clients: list[str], python: pathlib.Path) -> pd.DataFrame:
    """The same by PyTorch."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "data.npz"
        write_data(run, clients, path)
        command = [str(python), "-m", "benchmarks.peers.fed_avg_torch", str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=recording.ROOT)
    if done.returncode:
        raise errors.UserError(f"PyTorch's loop ended with status {done.returncode}: see above.")
    return pd.DataFrame(map(json.loads, done.stdout.splitlines())).assign(client=clients)


def rows(runs: list[finished_run.FinishedRun], known: pd.DataFrame, python: pathlib.Path) -> Iterator[pd.DataFrame]:
    """The missing rows of each run, seed by seed."""
    for run in runs:
        seed = run.config["seed"]
        if len(known) and (known["seed"] == seed).any():
            continue
        print(f"seed {seed}: PyTorch trains with the settings of {run.directory.name}", file=sys.stderr, flush=True)
        mine = ours(run).sort_values("client")
        both = [mine.assign(framework="ours"), theirs(run, mine["client"].tolist(), python).assign(framework="PyTorch")]
        yield pd.concat(both).assign(seed=seed, run=run.directory.name, run_commit=run.config["git_commit"])


def summary(table: pd.DataFrame) -> str:
    """Each seed's mean accuracies by framework, and the difference of the frameworks."""
    accuracy = table.assign(**{name: table[name] / table["test_examples"] for name in SHOWN})
    means = accuracy.groupby(["framework", "seed"])[list(SHOWN)].mean()
    lines = [means.rename(columns=SHOWN).round(4).to_string(), ""]
    for name, words in SHOWN.items():
        one, other = (means[name][framework] for framework in ("ours", "PyTorch"))
        error = np.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
        lines.append(f"{words}: ours - PyTorch = {one.mean() - other.mean():+.4f}, standard error {error:.4f}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="+", help="finished runs, one for each seed")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("agreement.csv"), help="the table")
    given = parser.parse_args(arguments)
    python = environments.python_of("pytorch")
    if python is None:
        parser.error("PyTorch has no environment: python -m benchmarks.peers.environments pytorch")
    try:
        runs = [finished_run.FinishedRun.open(directory) for directory in given.run]
        for run in runs:
            settings_of(run)
        table = pd.read_csv(given.output) if given.output.exists() else pd.DataFrame()
        for more in rows(runs, table, python):
            table = pd.concat([table, more.assign(git_commit=run_directory.git_commit())])
            table.to_csv(given.output, index=False)
    except errors.UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(summary(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
