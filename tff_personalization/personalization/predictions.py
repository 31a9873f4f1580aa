"""A global model's predictions for a client's test examples, before and after fine-tuning on its train part."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import global_weights, local_training
from tff_personalization.algorithms import client_work
from tff_personalization.models import functional
from tff_personalization.personalization import adaptation, evaluation


def build_predictions(
    model: functional.SeededModel,
    kept: global_weights.GlobalWeights,
    optimizer: tff.learning.optimizers.Optimizer,
    epochs: int,
    batch_size: int,
) -> tff.Computation:
    """Builds `(<θ@SERVER, {<index, seed, test, train>}@CLIENTS> -> {<index, before, after>}@CLIENTS)`.

    `before` and `after`, int32 of shape (n,), are the predicted classes of the client's test examples: by θ, and by θ
    after `epochs` epochs of fine-tuning on the client's train part. They are −1 where the logits are not finite. `kept`
    are global weights with the names and shapes of θ.
    """
    weights_type = client_work.weights_type(kept)
    data_type = evaluation.evaluation_data_type(model)
    local = local_training.LocalTraining(model, optimizer, batch_size)

    @tff.tensorflow.computation(weights_type, data_type)
    @tf.function(autograph=False)
    def predict(weights: tff.learning.models.ModelWeights, data: Mapping[str, Any]) -> Mapping[str, tf.Tensor]:
        train, test = (local_training.Examples(*data[part]) for part in ("train", "test"))
        client = adaptation.Client(model, kept.like(weights.trainable), train, test, data["seed"])
        last = epochs * local.steps_per_epoch(train)
        adapted = local.steps(local.initial_state(client.theta), train, client.seed, 0, last)
        return {
            "index": data["index"],
            "before": _predictions(model, client.theta, test.x),
            "after": _predictions(model, adapted.weights, test.x),
        }

    @tff.federated_computation(tff.FederatedType(weights_type, tff.SERVER), tff.FederatedType(data_type, tff.CLIENTS))
    def predict_clients(weights: tff.Value, data: tff.Value) -> tff.Value:
        return tff.federated_map(predict, (tff.federated_broadcast(weights), data))

    return predict_clients


def _predictions(model: functional.SeededModel, weights: tuple[tf.Tensor, ...], x: tf.Tensor) -> tf.Tensor:
    """The predicted class of each of `x`, int32 of shape (n,), in the same batches as in the evaluation."""

    def predict(x: tf.Tensor) -> tf.Tensor:
        logits = model.logits(weights, x, None)
        finite = tf.reduce_all(tf.math.is_finite(logits), axis=-1)
        return tf.where(finite, tf.argmax(logits, axis=-1, output_type=tf.int32), -1)

    return local_training.in_batches(predict, x, model.scoring.batch_size)
