"""Bounds of the speed benchmark: a task's work without TFF, and its arithmetic as matrix products."""

import functools
import multiprocessing
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import tasks, workload


def _islands(model: Any) -> tuple[Any, Callable[..., Any]]:
    """The network and the SGD step with parts that XLA compiles, which TFF's worker cannot: it has no XLA.

    The gradient of max-pooling and the update of the weights are one loop each. The gradient by a dense layer's input
    is `(W dᵀ)ᵀ`, which reads `W` along its rows.
    """
    import tensorflow as tf

    from tff_personalization.models import functional

    compiled = functools.partial(tf.function, jit_compile=True, autograph=False)

    @compiled
    def pool_gradient(h, pooled, upstream):
        _, rows, columns, channels = h.shape
        squares = tf.reshape(h, [-1, rows // 2, 2, columns // 2, 2, channels])
        is_maximum = [squares[:, :, i, :, j] >= pooled for i in (0, 1) for j in (0, 1)]
        left, parts = tf.ones_like(pooled, tf.bool), []
        for here in is_maximum:
            parts.append(tf.where(left & here, upstream, 0.0))
            left &= ~here
        rows_of = [tf.stack(parts[2 * i : 2 * i + 2], axis=3) for i in (0, 1)]
        return tf.reshape(tf.stack(rows_of, axis=2), tf.shape(h))

    @tf.custom_gradient
    def max_pool(h):
        pooled = tf.nn.max_pool2d(h, 2, 2, "VALID")
        return pooled, lambda upstream: pool_gradient(h, pooled, upstream)

    @tf.custom_gradient
    def product(h, kernel):
        def gradient(upstream):
            return tf.einsum("bo,io->bi", upstream, kernel), tf.matmul(h, upstream, transpose_a=True)

        return tf.matmul(h, kernel), gradient

    operations = functional.TENSORFLOW._replace(max_pool=max_pool, dense=lambda h, w, b: product(h, w) + b)
    return model.rebuilt(operations), compiled(_sgd_step)


def _sgd_step(weights, gradients, learning_rate):
    return tuple(w - learning_rate * g for w, g in zip(weights, gradients, strict=True))


def _raw_client(
    task: str, work: workload.Workload, fused: bool = False
) -> Callable[[tuple[np.ndarray, np.ndarray]], Any]:
    """One client's work in a loop of plain TensorFlow, with a given order of examples and without metrics."""
    import tensorflow as tf

    model, update = tasks.model(task), _sgd_step
    if fused:
        model, update = _islands(model)
    theta = tuple(tf.constant(w) for w in model.initial_weights[0])
    rng = np.random.default_rng(0)

    @tf.function(reduce_retracing=True)
    def train(weights, x, y, order):
        for step in tf.range(tf.shape(order)[0]):
            images, labels = tf.gather(x, order[step]), tf.gather(y, order[step])
            with tf.GradientTape() as tape:
                tape.watch(weights)
                loss = model.scoring.loss(model.logits(weights, images, tf.stack([7, step])), labels)
            # The gradient of an embedding is sparse.
            gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)]
            weights = update(weights, gradients, work.learning_rate)
        return weights

    @tf.function
    def correct(weights, x, y):
        hits = tf.equal(tf.argmax(model.logits(weights, x, None), axis=1, output_type=tf.int32), y)
        return tf.reduce_sum(tf.cast(hits, tf.int32))

    def epoch(count, batch_size=work.batch_size):
        return rng.permutation(count).astype(np.int32).reshape(-1, batch_size)

    def work_on(client):
        if task == "evaluation":
            (x, y), test = tasks.parts(client)
            weights, curve = theta, [correct(theta, *test)]
            for _ in range(tasks.EVALUATION_EPOCHS):
                weights = train(weights, x, y, epoch(len(y)))
                curve.append(correct(weights, *test))
            return [int(value) for value in curve]
        if task == "fed_sgd":
            order = epoch(work.examples, work.examples)
        else:
            batches = work.examples // work.batch_size
            steps = tasks.LOCAL_STEPS if task == "reptile" else work.local_epochs * batches
            order = np.concatenate([epoch(work.examples) for _ in range(-(-steps // batches))])[:steps]
        weights = train(theta, *client, order)
        return [w.numpy() for w in weights]

    return work_on


def _raw_process(task: str, work: workload.Workload, fused: bool, share: slice, pipe: Any) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    work_on = _raw_client(task, work, fused)
    clients = work.cohort()[share]
    pipe.send("ready")
    while pipe.recv():
        for client in clients:
            work_on(client)
        pipe.send("done")


def build_raw(task: str, work: workload.Workload, fused: bool = False) -> tasks.Run:
    """The bound: each core has a process with one thread and its share of the clients; no transfer, no aggregation.

    Args:
        task: one of `speed.TASKS`; with `fused`, one whose network is the CNN.
        work: the clients and what they do.
        fused: compile parts of a step with XLA, as `_islands` says.
    """

    spawn = multiprocessing.get_context("spawn")
    from tff_personalization.execution import worker_binary

    cores = worker_binary.available_cores()
    pipes = []
    for core in range(cores):
        here, there = spawn.Pipe()
        spawn.Process(
            target=_raw_process, args=(task, work, fused, slice(core, None, cores), there), daemon=True
        ).start()
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


def build_gemm(task: str, work: workload.Workload) -> tasks.Run:
    """The bound of arithmetic: the floating-point operations of the task's round as large square matrix products."""
    import tensorflow as tf

    side = 2048
    a = tf.random.stateless_normal([side, side], [1, 2])
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)[:1]))
    repeats = max(1, round(tasks.visits(task, work) * _flops_per_visit() / (2 * side**3)))

    def run():
        for _ in range(repeats):
            product().numpy()

    return run
