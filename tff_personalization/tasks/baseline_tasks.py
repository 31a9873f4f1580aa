"""Uses TFF's baseline tasks as tasks of this project. Clients, preprocessing and network are TFF's."""

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors
from tff_personalization.models import outputs
from tff_personalization.tasks import archives, conversions, registry, sources


def convert(
    baseline: tff.simulation.baselines.BaselineTask,
    predicts: outputs.Output,
    source: str,
    *,
    with_penalties: bool = True,
) -> registry.Task:
    """Makes a task that can be registered from a baseline task. Its data source and its network are called `baseline`.

    Examples are prepared as TFF prepares them for evaluation. The run sets batches, shuffling and epochs.

    Args:
        baseline: such as `tff.simulation.baselines.emnist.create_character_recognition_task(…)` gives.
        predicts: what its network predicts, because TFF's task does not say.
        source: what the data is, in a few words; begins with "synthetic" if it was generated.
        with_penalties: False leaves out the losses that the network adds, such as for weight decay. Otherwise a network
            with such losses is refused.
    """
    datasets = baseline.datasets
    spec, _ = datasets.element_type_structure

    def load(options: sources.SourceOptions) -> archives.Archive:
        del options
        return conversions.from_client_data(
            datasets.train_data,
            datasets.test_data,
            lambda x, y: (x, tf.cast(y, predicts.y_spec.dtype)),  # TFF has 0 and 1 as floats, too
            predicts.names,
            source,
            lambda dataset: datasets.eval_preprocess_fn(dataset).unbatch(),
        )

    def network(num_classes: int, rng: np.random.Generator) -> registry.Network:
        del num_classes, rng
        return registry.Network(keras_model(baseline.model_fn()), with_penalties=with_penalties)

    return registry.Task(
        predicts, tf.TensorSpec(spec.shape[1:], spec.dtype), {"baseline": network}, sources.own(baseline=load)
    )


def keras_model(model: tff.learning.models.VariableModel) -> tf.keras.Model:
    """The Keras model inside a model of `tff.learning.models.from_keras_model`. Raises UserError if there is none."""
    held: list[Any] = [value for value in vars(model).values() if isinstance(value, tf.keras.Model)]
    if len(held) != 1:
        raise errors.UserError(
            f"a {type(model).__name__} holds no Keras model: give a task of tff.learning.models.from_keras_model."
        )
    return held[0]
