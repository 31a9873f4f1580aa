"""Where the time of a training step goes: the paper's network, batch 20, SGD, one thread of TensorFlow without TFF.

    python -m benchmarks.profile_step [--repetitions=9]

The inner loop runs in a session that traces each operation. `step.csv` in --output_dir has the slowest operations: the
kernel, its place in the step, and the median microseconds a step.
"""

import argparse
import collections
import statistics

from benchmarks import recording, workload  # isort: skip; before TensorFlow, which it keeps quiet

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training
from tff_personalization.models import emnist_cnn

LISTED = 30


def measure(repetitions: int) -> pd.DataFrame:
    """One row per operation of a step: kernel, place, microseconds."""
    work = workload.Workload()
    examples = local_training.Examples(*work.cohort()[0])
    steps = work.local_epochs * work.examples // work.batch_size
    seen: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    with tf.Graph().as_default() as graph:
        model = emnist_cnn.build_cnn(workload.NUM_CLASSES, np.random.default_rng(0))
        theta = model.initial_weights[0]
        fed = [tf.compat.v1.placeholder(value.dtype, value.shape) for value in (*examples, *theta)]

        @tf.function(autograph=False)
        def train(x, y, *weights):
            optimizer = tff.learning.optimizers.build_sgdm(work.learning_rate)
            training = local_training.LocalTraining(model, optimizer, work.batch_size)
            start, client = training.initial_state(weights), local_training.Examples(x, y)
            return training.steps(start, client, tf.constant([3, 4]), 0, steps).weights

        trained = train(*fed)
    threads = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    with tf.compat.v1.Session(graph=graph, config=threads) as session:
        options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
        for repetition in range(-2, repetitions):
            traced = tf.compat.v1.RunMetadata()
            session.run(trained, dict(zip(fed, (*examples, *theta), strict=True)), options, traced)
            if repetition >= 0:
                for key, microseconds in _by_operation(traced).items():
                    seen[key].append(microseconds / steps)
    rows = [(*key, round(statistics.median(values), 1)) for key, values in seen.items()]
    table = pd.DataFrame(rows, columns=["kernel", "place", "microseconds"])
    return table.sort_values("microseconds", ascending=False).head(LISTED)


def _by_operation(traced: tf.compat.v1.RunMetadata) -> collections.Counter:
    total: collections.Counter = collections.Counter()
    for device in traced.step_stats.dev_stats:
        for operation in device.node_stats:
            kernel = operation.timeline_label.partition(" = ")[2].partition("(")[0]
            if kernel and "PartitionedCall" not in kernel:  # whose operations are listed themselves
                place = operation.node_name.rpartition("/_")[2]
                total[kernel, place] += operation.op_end_rel_micros - operation.op_start_rel_micros
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9, help="how often the loop is traced")
    recording.add_output_dir(parser)
    options = parser.parse_args()
    if options.repetitions < 1:
        parser.error(f"--repetitions={options.repetitions}: give 1 or more")
    table = measure(options.repetitions)
    print(table.to_string(index=False), flush=True)
    versions = recording.words(recording.versions_of(recording.PACKAGES))
    recording.write(table.assign(versions=versions), options.output_dir / "step.csv")


if __name__ == "__main__":
    main()
