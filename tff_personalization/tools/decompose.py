"""Decomposes FedAvg's updates in a run into FedSGD's and FOMAML's terms: how much of FedAvg is meta-learning.

    python run_experiment.py --method=fed_avg --rounds_per_model=10 …
    python -m tff_personalization.tools.decompose RUN

For each global model that the run has kept, the next round's cohort repeats its local training. Its update is
decomposed (`algorithms/decomposition.py`), for all E local epochs and for the first 1, 2, … of them.

Writes RUN/decomposition.csv, with one row for each round, level, number of epochs and part. The level is `client` (mean
over the cohort's clients) or `cohort` (the mean update itself). The number of epochs is e = 1 … E, for the update of
the first e epochs. Part 0 is FedSGD's term; parts 1 to e are FOMAML's terms of that epoch. A row has the part's norm
relative to the update's, its cosine with FedSGD's term, and its share of the update. A model is left out if the next
client learning rate is zero, as after the last round of a cosine schedule.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import tensorflow_federated as tff
import tqdm

from tff_personalization import errors, optimizers, startup
from tff_personalization.algorithms import decomposition
from tff_personalization.records import files, finished_run


def decompose(run: pathlib.Path) -> pd.DataFrame:
    """The rows of decomposition.csv of a run.

    Raises:
        UserError: it is not a run of FedAvg with SGD, its updates are not plain means weighted by examples, it has kept
            no models, or its data cannot be read.
    """
    opened = finished_run.FinishedRun.open(run)
    settings, client = opened.experiment.config, opened.experiment.optimizers.get("client")
    if settings.method != "fed_avg" or client is None or client.name != "sgd" or client.options.get("momentum"):
        raise errors.UserError(
            f"{run}: a run of --method=fed_avg with --client_optimizer=sgd, without momentum, is needed."
        )
    # Dropout of clients is allowed: the clients that report are the cohort.
    for flag, needed in (("aggregator", "mean"), ("client_weighting", "examples"), ("straggler_probability", 0)):
        if (value := opened.experiment.values[flag]) != needed:
            raise errors.UserError(
                f"{run}: made with --{flag}={value}; a run with --{flag}={needed} is needed, whose updates are means "
                "over clients, weighted by examples, of all local steps."
            )
    rounds = [number for number in opened.kept_rounds if client.schedule.factor(number + 1, settings.rounds) > 0]
    if not rounds:
        raise errors.UserError(
            f"{run}: it kept no models to continue from: repeat it with --rounds_per_model and another --run_name."
        )
    setup = opened.setup
    computation = decomposition.build_decomposition(
        setup.model, setup.optimizer(optimizers.CLIENT), setup.settings.local_epochs, setup.settings.batch_size
    )
    cohort, tables = setup.cohorts(), {}
    with opened.computing():
        for round_number in tqdm.tqdm(rounds, desc="Decomposing", unit="round"):
            weights = tff.learning.models.ModelWeights(opened.global_weights(round_number).flat, ())
            found = computation(weights, cohort(round_number + 1).values)
            tables[round_number, "client"] = by_epochs(np.stack(found["clients"]))
            tables[round_number, "cohort"] = by_epochs(found["cohort"][np.newaxis])
    return pd.concat(tables, names=["round", "level"]).reset_index(["round", "level"]).reset_index(drop=True)


def by_epochs(products: np.ndarray) -> pd.DataFrame:
    """The `measures` of the updates of the first 1, 2, … E epochs, with a column `epochs` before the others.

    Args:
        products: shape (n, E + 1, E + 1), the inner products of the parts of n updates of E epochs.
    """
    tables = {epochs: measures(products[:, : epochs + 1, : epochs + 1]) for epochs in range(1, products.shape[1])}
    return pd.concat(tables, names=["epochs"]).reset_index("epochs").reset_index(drop=True)


def measures(products: np.ndarray) -> pd.DataFrame:
    """Norm, cosine and share of each part, averaged over updates.

    Args:
        products: shape (n, P, P), the inner products of the P parts of each of n updates.
    """
    total = products.sum(axis=(1, 2))
    norms = np.sqrt(np.maximum(np.diagonal(products, axis1=1, axis2=2), 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "relative_norm": norms / np.sqrt(total)[:, np.newaxis],
            "cosine_with_fed_sgd": products[:, 0] / (norms * norms[:, :1]),
            "share": products.sum(axis=2) / total[:, np.newaxis],
        }
    means = {name: pd.DataFrame(values).mean() for name, values in found.items()}  # of updates that have a value
    return pd.DataFrame({"part": range(products.shape[1]), **means})


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        raise errors.UserError("a run directory is expected: decompose RUN")
    run = pathlib.Path(argv[1])
    files.check_writable(run)
    table = decompose(run)
    files.write_text(run / "decomposition.csv", table.to_csv(index=False))
    last = table[(table["round"] == table["round"].max()) & (table["epochs"] == table["epochs"].max())]
    print(last.round(3).to_string(index=False))
    print(f"\nAll rounds: {run / 'decomposition.csv'}")
    return 0


if __name__ == "__main__":
    startup.run_main(main)
