"""Converts clients' `tf.data` datasets, of any TFF `ClientData`, for this project's computations.

So its learning processes run in TFF's own loops and programs, and its evaluation works with any TFF process:

    setup = method.Setup(model, fed_avg.Settings(local_epochs=2))      # other settings have their defaults
    process = fed_avg.build_fed_avg(setup)                             # a tff.learning.templates.LearningProcess
    tff.simulation.run_training_process(
        process, lambda round_number: [
            client_datasets.for_training(model, data.create_tf_dataset_for_client(client), client, round_number)
            for client in clients
        ], total_rounds=10,
    )
"""

import collections
import collections.abc

import numpy as np
import tensorflow as tf

from tff_personalization import cohorts, errors, seeds
from tff_personalization.models import functional

_CHUNK = 4096


def for_training(
    model: functional.SeededModel, dataset: tf.data.Dataset, client: str = "", round_number: int = 1, seed: int = 0
) -> tf.data.Dataset:
    """A client's dataset as a value of `client_work.client_data_type`: one element with all of its examples.

    The learning process shuffles, batches and repeats; the dataset has each example once. With a run's seed, clients
    and rounds, shuffling and dropout are those of that run.

    Args:
        model: the network to train.
        dataset: single examples, (x, y) or a mapping with `x` and `y`.
        client: its name; shuffling and dropout depend on it.
        round_number: the round; shuffling, dropout and scheduled learning rates depend on it.
        seed: the seed of all clients and rounds.

    Raises:
        UserError: the network takes integers, and the dataset has other numbers.
    """
    of_client = seeds.stateless(seed, "local_training", round_number, client)
    x, y = _arrays(model, dataset)
    if not len(y):
        return cohorts.client_value(x, y, of_client, round_number)
    # The number of examples is left open, so that all clients have the same type, as TFF's data sources require.
    parts = {"seed": of_client, "round": np.int32(round_number), "step_share": np.float32(1)}
    whole = {name: tf.data.Dataset.from_tensor_slices(part).batch(len(y)) for name, part in (("x", x), ("y", y))}
    rest = {name: tf.data.Dataset.from_tensors(part) for name, part in parts.items()}
    return tf.data.Dataset.zip(collections.OrderedDict({**whole, **rest}))


def for_evaluation(
    model: functional.SeededModel,
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    index: int = 0,
    client: str = "",
    seed: int = 0,
) -> collections.OrderedDict:
    """A client's two datasets as an argument of `evaluation.build_personalization_evaluation`.

    Args:
        model: the network to evaluate.
        train: what it is adapted to, as in `for_training`.
        test: the examples on which it is evaluated.
        index: is returned with the client's measurements.
        client: its name; shuffling and dropout depend on it.
        seed: the seed of all clients.

    Raises:
        UserError: as in `for_training`.
    """
    return collections.OrderedDict(
        index=np.int32(index),
        seed=seeds.stateless(seed, "personalization", 0, client),
        test=_arrays(model, test),
        train=_arrays(model, train),
    )


def _arrays(model: functional.SeededModel, dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """All x and all y of a dataset's examples, in the network's types."""
    x_spec, y_spec = model.input_spec
    mapping = isinstance(dataset.element_spec, collections.abc.Mapping)
    pairs = [(e["x"], e["y"]) if mapping else e for e in dataset.batch(_CHUNK).as_numpy_iterator()]
    if not pairs:
        pairs = [tuple(np.zeros([0, *spec.shape[1:]]) for spec in model.input_spec)]
    x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return _cast("x", x, x_spec), _cast("y", y, y_spec)


def _cast(name: str, array: np.ndarray, spec: tf.TensorSpec) -> np.ndarray:
    """The array in the network's type. Only floats may be rounded, to other floats."""
    result = array.astype(spec.dtype.as_numpy_dtype, copy=False)
    if result.dtype.kind != "f" and not np.array_equal(result, array):
        raise errors.UserError(
            f"{name}: the network takes {spec.dtype.name}, and the dataset has {array.dtype} of other values, such as "
            "pixels from 0 to 1: convert them first."
        )
    return result
