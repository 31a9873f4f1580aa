"""TensorFlow contenders of the speed benchmark: ours, TFF's stock recipes, and bounds without TFF.

    python -m benchmarks.contenders CONTENDER TASK        # speaks the protocol of workload.serve

Tasks: `training` (FedAvg with the epochs of the workload), `reptile` (10 local steps), `fed_sgd` (one full-batch
gradient a client), `evaluation` (20 of a client's examples test, the others train; 5 epochs of fine-tuning, judged
before and after each) and `text` (FedAvg on sequences of characters, with the LSTM).
"""

import contextlib
import functools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil

from benchmarks import recording, workload

LOCAL_STEPS = 10
EVALUATION_EPOCHS, TEST_EXAMPLES = 5, 20
WORK = workload.Workload()
TEXT = workload.TextWorkload(clients=10, examples=20, local_epochs=1, batch_size=10, learning_rate=1.0)
SEED = np.array([3, 4], np.int32)
Run = Callable[[], Any]
"""Does a round and returns what the contender makes of it."""


def visits(task: str, work: workload.Workload) -> int:
    """What a round of a task counts: visited examples, or evaluated clients."""
    return {
        "training": work.visits,
        "text": work.visits,
        "reptile": work.clients * LOCAL_STEPS * work.batch_size,
        "fed_sgd": work.clients * work.examples,
        "evaluation": work.clients,
    }[task]


def work_of(task: str) -> workload.Workload:
    """The work of a task."""
    return TEXT if task == "text" else WORK


def _model(task: str):
    from tff_personalization.models import char_lstm, emnist_cnn

    rng = np.random.default_rng(0)
    if task == "text":
        return char_lstm.build_char_lstm(workload.CHARACTERS, rng)
    return emnist_cnn.build_cnn(workload.NUM_CLASSES, rng)


def _parts(client):
    """A client's train and test part for the evaluation."""
    x, y = client
    return (x[:-TEST_EXAMPLES], y[:-TEST_EXAMPLES]), (x[-TEST_EXAMPLES:], y[-TEST_EXAMPLES:])


# Ours --------------------------------------------------------------------------------------------------------------


def build_ours(task: str, work: workload.Workload) -> Run:
    """The product's own computations and settings, data handed over again in each round."""
    import tensorflow_federated as tff

    from baselines import fed_sgd
    from tff_personalization import cohorts
    from tff_personalization.algorithms import fed_avg, reptile
    from tff_personalization.personalization import evaluation

    model, cohort = _model(task), work.cohort()
    sgd, server = (tff.learning.optimizers.build_sgdm(rate) for rate in (work.learning_rate, 1.0))
    if task == "evaluation":
        computation = evaluation.build_personalization_evaluation(
            model,
            sgd,
            epochs=EVALUATION_EPOCHS,
            batch_size=work.batch_size,
            strategies=["fine_tune"],
            release="records",
        )
        weights = tff.learning.models.ModelWeights(model.initial_weights[0], ())

        def evaluate():
            clients = []
            for index, client in enumerate(cohort):
                train, test = _parts(client)
                clients.append({"index": np.int32(index), "seed": SEED, "test": test, "train": train})
            return computation(weights, clients)

        return evaluate
    processes = {
        "training": lambda: fed_avg.build_fed_avg(model, sgd, server, work.local_epochs, work.batch_size),
        "text": lambda: fed_avg.build_fed_avg(model, sgd, server, work.local_epochs, work.batch_size),
        "reptile": lambda: reptile.build_reptile(model, sgd, server, LOCAL_STEPS, work.batch_size),
        "fed_sgd": lambda: fed_sgd.build_fed_sgd(model, sgd, server),
    }
    process = processes[task]()
    state = process.initialize()
    return lambda: process.next(state, [cohorts.client_value(*client, SEED) for client in cohort])


# TFF's stock recipes -----------------------------------------------------------------------------------------------


def _keras_text_model():
    import tensorflow as tf
    import tensorflow_federated as tff

    layers, length = tf.keras.layers, workload.SEQUENCE
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential(
            [
                layers.Embedding(workload.CHARACTERS, 8, input_length=length),
                layers.LSTM(256, return_sequences=True),
                layers.LSTM(256, return_sequences=True),
                layers.Dense(workload.CHARACTERS),
            ]
        ),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=(tf.TensorSpec([None, length], tf.int32), tf.TensorSpec([None, length], tf.int32)),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


def _keras_model():
    import tensorflow as tf
    import tensorflow_federated as tff

    layers = tf.keras.layers
    return tff.learning.models.from_keras_model(
        tf.keras.Sequential(
            [
                layers.Conv2D(32, 3, activation="relu", input_shape=(28, 28, 1)),
                layers.Conv2D(64, 3, activation="relu"),
                layers.MaxPool2D(),
                layers.Dropout(0.25),
                layers.Flatten(),
                layers.Dense(128, activation="relu"),
                layers.Dropout(0.5),
                layers.Dense(workload.NUM_CLASSES),
            ]
        ),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=(tf.TensorSpec([None, 28, 28, 1], tf.float32), tf.TensorSpec([None], tf.int32)),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )


def _stock_dataset(client):
    """A client's examples as TFF's tutorials hand them over: floats in [0, 1], one element an example."""
    import tensorflow as tf

    x, y = client
    return tf.data.Dataset.from_tensor_slices(((x / 255.0).astype(np.float32)[..., np.newaxis], y))


def _fine_tune(work, model, train_data, test_data):
    """A personalization function in the form that TFF's `build_personalization_eval_computation` takes."""
    import tensorflow as tf

    optimizer = tf.keras.optimizers.SGD(work.learning_rate)

    @tf.function
    def train_step(batch):
        with tf.GradientTape() as tape:
            output = model.forward_pass(batch)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(output.loss, variables), variables, strict=True))
        return output.loss

    batches = train_data.shuffle(work.examples).batch(work.batch_size)
    results = {"epoch_0": _accuracy(model, test_data)}
    for epoch in range(1, EVALUATION_EPOCHS + 1):
        for batch in batches:
            train_step(batch)
        results[f"epoch_{epoch}"] = _accuracy(model, test_data)
    return results


def _accuracy(model, data):
    import tensorflow as tf

    def add(total, batch):
        output = model.forward_pass(batch, training=False)
        hits = tf.equal(tf.argmax(output.predictions, axis=1, output_type=tf.int32), batch[1])
        return total + tf.reduce_sum(tf.cast(hits, tf.int32))

    return data.batch(TEST_EXAMPLES).reduce(0, add)


def build_stock(task: str, work: workload.Workload) -> Run:
    """TFF's own algorithms, with a Keras model and data prepared as in TFF's tutorials."""
    import collections

    import tensorflow as tf
    import tensorflow_federated as tff

    sgd, server = (tff.learning.optimizers.build_sgdm(rate) for rate in (work.learning_rate, 1.0))
    cohort = work.cohort()
    if task == "evaluation":
        computation = tff.learning.algorithms.build_personalization_eval_computation(
            _keras_model,
            collections.OrderedDict(fine_tune=lambda: functools.partial(_fine_tune, work)),
            lambda model, data: {"accuracy": _accuracy(model, data)},
        )
        weights = tff.learning.models.ModelWeights.from_model(_keras_model())
        weights = tff.learning.models.ModelWeights([v.numpy() for v in weights.trainable], [])

        def evaluate():
            clients = []
            for client in cohort:
                train, test = (_stock_dataset(part) for part in _parts(client))
                clients.append(collections.OrderedDict(train_data=train, test_data=test))
            return computation(weights, clients)

        return evaluate

    process = tff.learning.algorithms.build_weighted_fed_avg(
        _keras_text_model if task == "text" else _keras_model, client_optimizer_fn=sgd, server_optimizer_fn=server
    )
    state = process.initialize()

    def batches(client):
        if task == "text":
            sequences, following = client
            data = tf.data.Dataset.from_tensor_slices((sequences.astype(np.int32), following))
            return data.batch(work.batch_size).repeat(work.local_epochs)
        if task == "fed_sgd":
            return _stock_dataset(client).batch(work.examples)
        shuffled = _stock_dataset(client).shuffle(work.examples).batch(work.batch_size)
        return shuffled.repeat().take(LOCAL_STEPS) if task == "reptile" else shuffled.repeat(work.local_epochs)

    return lambda: process.next(state, [batches(client) for client in cohort])


# Bounds without TFF ------------------------------------------------------------------------------------------------


def _raw_client(task: str, work: workload.Workload) -> Callable[[tuple[np.ndarray, np.ndarray]], Any]:
    """One client's work in a loop of plain TensorFlow: the order of examples is given, nothing is measured."""
    import tensorflow as tf

    model = _model(task)
    theta = tuple(tf.constant(w) for w in model.initial_weights[0])
    rng = np.random.default_rng(0)

    @tf.function(reduce_retracing=True)
    def train(weights, x, y, order):
        for step in tf.range(tf.shape(order)[0]):
            images, labels = tf.gather(x, order[step]), tf.gather(y, order[step])
            with tf.GradientTape() as tape:
                tape.watch(weights)
                loss = model.scoring.loss(model.logits(weights, images, tf.stack([7, step])), labels)
            # That of an embedding is sparse.
            gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)]
            weights = tuple(w - work.learning_rate * g for w, g in zip(weights, gradients, strict=True))
        return weights

    @tf.function
    def correct(weights, x, y):
        hits = tf.equal(tf.argmax(model.logits(weights, x, None), axis=1, output_type=tf.int32), y)
        return tf.reduce_sum(tf.cast(hits, tf.int32))

    def epoch(count, batch_size=work.batch_size):
        return rng.permutation(count).astype(np.int32).reshape(-1, batch_size)

    def work_on(client):
        if task == "evaluation":
            (x, y), test = _parts(client)
            weights, curve = theta, [correct(theta, *test)]
            for _ in range(EVALUATION_EPOCHS):
                weights = train(weights, x, y, epoch(len(y)))
                curve.append(correct(weights, *test))
            return [int(value) for value in curve]
        if task == "fed_sgd":
            order = epoch(work.examples, work.examples)
        else:
            batches = work.examples // work.batch_size
            steps = LOCAL_STEPS if task == "reptile" else work.local_epochs * batches
            order = np.concatenate([epoch(work.examples) for _ in range(-(-steps // batches))])[:steps]
        weights = train(theta, *client, order)
        return [w.numpy() for w in weights]

    return work_on


def _raw_process(task: str, work: workload.Workload, share: slice, pipe: Any) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    work_on = _raw_client(task, work)
    clients = work.cohort()[share]
    pipe.send("ready")
    while pipe.recv():
        for client in clients:
            work_on(client)
        pipe.send("done")


def build_raw(task: str, work: workload.Workload) -> Run:
    """The bound: each core has a process with one thread and its share of the clients; no transfer, no aggregation."""

    spawn = multiprocessing.get_context("spawn")
    from tff_personalization.execution import worker_binary

    cores = worker_binary.available_cores()
    pipes = []
    for core in range(cores):
        here, there = spawn.Pipe()
        spawn.Process(target=_raw_process, args=(task, work, slice(core, None, cores), there), daemon=True).start()
        pipes.append(here)
    for pipe in pipes:
        pipe.recv()

    def run():
        for pipe in pipes:
            pipe.send(True)
        for pipe in pipes:
            pipe.recv()

    return run


def _flops_per_visit() -> int:
    """Multiplications and additions of the CNN for one example, forward and backward (no gradient for the pixels)."""
    conv_1, conv_2 = 26 * 26 * 9 * 1 * 32, 24 * 24 * 9 * 32 * 64
    dense = 9216 * 128 + 128 * workload.NUM_CLASSES
    return 2 * (2 * conv_1 + 3 * conv_2 + 3 * dense)


def build_gemm(task: str, work: workload.Workload) -> Run:
    """The bound of arithmetic: the floating-point operations of the task's round as large square matrix products."""
    import tensorflow as tf

    side = 2048
    a = tf.random.stateless_normal([side, side], [1, 2])
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)[:1]))
    repeats = max(1, round(visits(task, work) * _flops_per_visit() / (2 * side**3)))

    def run():
        for _ in range(repeats):
            product().numpy()

    return run


# The processes -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _context(contender: str) -> Iterator[None]:
    from tff_personalization.execution import runtime

    if contender in ("ours", "stock_with_settings"):
        with open(os.devnull, "wb") as log, runtime.execution_context(log=log):
            yield
        return
    try:
        yield  # with TFF's own context, which starts a worker when it first computes
    finally:
        for child in psutil.Process().children(recursive=True):
            child.kill()


BUILDERS: dict[str, Callable[[str, workload.Workload], Run]] = {
    "ours": build_ours,
    "stock": build_stock,
    "stock_with_settings": build_stock,
    "raw": build_raw,
    "gemm": build_gemm,
}


def main(contender: str, task: str) -> None:
    with _context(contender):
        run = BUILDERS[contender](task, work_of(task))
        workload.serve(run, **recording.versions_of(recording.PACKAGES))


if __name__ == "__main__":
    main(*sys.argv[1:])
