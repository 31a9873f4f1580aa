"""TFF's stock recipes for the tasks of the speed benchmark: its own algorithms, used as in its tutorials."""

import collections
import functools

import numpy as np

from benchmarks import tasks, workload


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
    """A client's examples in the form of TFF's tutorials: floats in [0, 1], one element for each example."""
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
    for epoch in range(1, tasks.EVALUATION_EPOCHS + 1):
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

    return data.batch(tasks.TEST_EXAMPLES).reduce(0, add)


def build_stock(task: str, work: workload.Workload) -> tasks.Run:
    """TFF's own algorithms, with a Keras model and data as in TFF's tutorials."""
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
                train, test = (_stock_dataset(part) for part in tasks.parts(client))
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
        return shuffled.repeat().take(tasks.LOCAL_STEPS) if task == "reptile" else shuffled.repeat(work.local_epochs)

    return lambda: process.next(state, [batches(client) for client in cohort])
