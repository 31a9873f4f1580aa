"""A run's predictions for each test image of its test clients, before and after personalization.

    python -m tff_personalization.tools.gallery RUN [--clients=N]

Fine-tunes the model after the last round on each client again, with the same seeds. The accuracies must equal those in
RUN/clients.csv. Writes RUN/gallery.npz: `images` (n, 28, 28) uint8; the classes `labels`, `before` and `after` (n,)
int32 (−1: none, because the model's output is not finite); `client` (n,), the writers; `classes`, the names of the
classes. For tasks with images and the strategy fine_tune.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import tqdm
from absl import flags

from analysis.gallery import FILE
from tff_personalization import errors, metrics, startup
from tff_personalization.programs import client_evaluation, galleries
from tff_personalization.records import files, finished_run


def gallery(run: pathlib.Path, most_clients: int | None = None) -> dict[str, np.ndarray]:
    """The arrays of gallery.npz, for the first `most_clients` test clients of clients.csv, or for all.

    Raises:
        UserError: the run is unfinished, has another task or strategy, or released only aggregates; or its data has
            changed, or its accuracies cannot be reproduced.
    """
    opened = finished_run.FinishedRun.open(run)
    recorded = _recorded(opened)
    evaluator = client_evaluation.PersonalizationEvaluator(
        opened.experiment, opened.model, opened.data, opened.global_weights()
    )
    clients = list(recorded.index.unique("client"))[:most_clients]
    predicted = evaluator.predictions(opened.global_weights(), clients, opened.experiment.config.rounds)
    parts = []
    with opened.computing():
        shown = tqdm.tqdm(predicted, total=len(clients), desc="Predicting", unit="client")
        for client, part in zip(clients, shown, strict=True):
            _check(run, client, recorded.loc[client], part)
            parts.append(part)
    return galleries.arrays(parts, opened.task)


def _recorded(run: finished_run.FinishedRun) -> pd.DataFrame:
    """The strategy's rows of clients.csv, by client and epoch, in the file's order of clients."""
    if not run.task.drawn:
        raise errors.UserError(
            f"{run.directory}: --task={run.config['task']} has no characters; give a run of a task with characters."
        )
    if run.metric != metrics.ACCURACY:
        raise errors.UserError(
            f"{run.directory}: its metric is {run.metric.name}; give a run whose metric is accuracy."
        )
    table = run.recorded_clients[run.recorded_clients["strategy"] == galleries.STRATEGY]
    if table.empty:
        raise errors.UserError(
            f"{run.directory}: not evaluated with --strategies={galleries.STRATEGY}: repeat the run with this strategy."
        )
    return table.set_index(["client", "epoch"])


def _check(run: pathlib.Path, client: str, recorded: pd.DataFrame, found: dict[str, np.ndarray]) -> None:
    """Refuses predictions if the numbers of right ones, before or after the last epoch, differ from the records."""
    for name, epoch in (("before", 0), ("after", recorded.index.max())):
        right = int(np.count_nonzero(found[name] == found["labels"]))
        expected = recorded.loc[epoch, "correct"]
        if right != expected:
            raise errors.UserError(
                f"{run}: of {client}'s {len(found['labels'])} test examples, {right} are right {name} personalization "
                f"here, and {expected} in clients.csv: this machine or version gives other numbers than the run; "
                "repeat the run here."
            )


def main(argv: Sequence[str]) -> int:
    if len(argv) != 2:
        raise errors.UserError("a run directory is expected: gallery RUN")
    run = pathlib.Path(argv[1])
    files.check_writable(run)
    arrays = gallery(run, flags.FLAGS.clients)
    files.save_arrays(run / FILE, **arrays)
    right = {name: (arrays[name] == arrays["labels"]).mean() for name in ("before", "after")}
    print(
        f"{len(arrays['labels'])} images of {len(np.unique(arrays['client']))} clients, {right['before']:.1%} right "
        f"before personalization, {right['after']:.1%} after: {run / FILE}"
    )
    return 0


if __name__ == "__main__":
    flags.DEFINE_integer(
        "clients", None, "Use only this many test clients, from the first one. Default: all.", lower_bound=1
    )
    startup.run_main(main)
