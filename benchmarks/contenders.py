"""TensorFlow contenders of the speed benchmark: ours, TFF's stock recipes, and bounds without TFF.

python -m benchmarks.contenders CONTENDER TASK        # speaks the protocol of workload.serve; tasks: tasks.py
"""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator

import numpy as np
import psutil

from benchmarks import bounds, recording, stock, tasks, workload


def build_ours(task: str, work: workload.Workload, keras: bool = False) -> tasks.Run:
    """The product's own computations and settings; data is handed over again in each round.

    With `keras`, the network is the Keras twin of the paper's network, as a plugin brings it.
    """
    import tensorflow_federated as tff

    from baselines import fed_sgd
    from tff_personalization import cohorts
    from tff_personalization.algorithms import reptile
    from tff_personalization.personalization import evaluation

    model, cohort = tasks.keras_twin() if keras else tasks.model(task), work.cohort()
    if task == "evaluation":
        computation = evaluation.build_personalization_evaluation(
            model,
            tff.learning.optimizers.build_sgdm(work.learning_rate),
            epochs=tasks.EVALUATION_EPOCHS,
            batch_size=work.batch_size,
            strategies=["fine_tune"],
            release="records",
        )
        weights = tff.learning.models.ModelWeights(model.initial_weights[0], ())

        def evaluate():
            clients = []
            for index, client in enumerate(cohort):
                train, test = tasks.parts(client)
                clients.append({"index": np.int32(index), "seed": tasks.SEED, "test": test, "train": train})
            return computation(weights, clients)

        return evaluate
    steps = {"local_steps": tasks.LOCAL_STEPS, "batch_size": work.batch_size}
    processes = {
        "training": lambda: tasks.fed_avg(model, work),
        "text": lambda: tasks.fed_avg(model, work),
        "reptile": lambda: reptile.build_reptile(tasks.setup(reptile, model, work, **steps)),
        "fed_sgd": lambda: fed_sgd.build_fed_sgd(tasks.setup(fed_sgd, model, work)),
    }
    process = processes[task]()
    state = process.initialize()
    return lambda: process.next(state, [cohorts.client_value(*client, tasks.SEED) for client in cohort])


@contextlib.contextmanager
def _context(contender: str) -> Iterator[None]:
    from tff_personalization.execution import runtime

    if contender in ("ours", "keras", "stock_with_settings"):
        with open(os.devnull, "wb") as log, runtime.execution_context(log=log):
            yield
        return
    try:
        yield  # with TFF's own context, which starts a worker when it first computes
    finally:
        for child in psutil.Process().children(recursive=True):
            child.kill()


BUILDERS: dict[str, Callable[[str, workload.Workload], tasks.Run]] = {
    "ours": build_ours,
    "keras": functools.partial(build_ours, keras=True),
    "stock": stock.build_stock,
    "stock_with_settings": stock.build_stock,
    "raw": bounds.build_raw,
    "raw_fused": functools.partial(bounds.build_raw, fused=True),
    "gemm": bounds.build_gemm,
}


def main(contender: str, task: str) -> None:
    with _context(contender):
        run = BUILDERS[contender](task, tasks.work_of(task))
        workload.serve(run, **recording.versions_of(recording.PACKAGES))


if __name__ == "__main__":
    main(*sys.argv[1:])
