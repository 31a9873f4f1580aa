"""The terms of FedAvg's update, Jiang et al. (2019, arXiv 1909.12488, section 3): FedSGD's term and FOMAML's.

    θ: global model, φ_j: a client's model after j local SGD steps of rate β, φ_0 = θ, J = E × (batches of the client)
    g_j = ∇L(φ_{j−1}; batch j)
    Δ = θ − φ_J = β g_1 + β Σ_{j=2}^{J} g_j
                  FedSGD   FOMAML(1) … FOMAML(J − 1): gradients at the model after 1 … J − 1 steps

The terms of one epoch are added: part 0 is FedSGD's term, part e is the rest of epoch e. The share of a part P is ⟨P,
Δ⟩ / ‖Δ‖²; the shares add up to 1.
"""

import collections
from collections.abc import Mapping, Sequence

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import global_weights, local_training
from tff_personalization.algorithms import client_work
from tff_personalization.models import functional


def build_decomposition(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    local_epochs: int,
    batch_size: int,
    shuffle: bool = True,
) -> tff.Computation:
    """Builds the computation that decomposes the updates of a cohort.

    Its type is `(<θ@SERVER, {<x, y, seed, …>*}@CLIENTS> -> <clients={float32[E+1,E+1]}@CLIENTS,
    cohort=float32[E+1,E+1]@SERVER>)`: the inner products of the E + 1 parts with each other, for each client's update
    and for the cohort's. The cohort's update is the mean of the clients' updates, weighted by examples.

    Args:
        model: the model θ.
        client_optimizer: takes the local steps. It must be SGD without momentum, because only then are parts gradients.
        local_epochs: E.
        batch_size: examples a step.
        shuffle: whether clients permute their examples in each epoch.
    """
    training = local_training.LocalTraining(model, client_optimizer, batch_size, shuffle=shuffle)

    @tff.tensorflow.computation(
        client_work.weights_type(global_weights.GlobalWeights.initial(model)), client_work.client_data_type(model)
    )
    @tf.function(autograph=False)
    def parts_of_client(
        weights: tff.learning.models.ModelWeights, data: tf.data.Dataset
    ) -> tuple[tuple[client_work.Weights, ...], tf.Tensor, tf.Tensor]:
        client = client_work.client_round(data)
        per_epoch = training.steps_per_epoch(client.examples)
        ends = [tf.minimum(per_epoch, 1), *(epoch * per_epoch for epoch in range(1, local_epochs + 1))]
        state = training.initial_state(tuple(weights.trainable), round_number=client.round_number)
        first, parts = tf.constant(0), []
        for end in ends:
            after = training.steps(state, client.examples, client.seed, first, end)
            parts.append(tuple(a - b for a, b in zip(state.weights, after.weights, strict=True)))
            state, first = after, end
        return tuple(parts), inner_products(parts), tf.cast(tf.shape(client.examples.y)[0], tf.float32)

    @tff.tensorflow.computation(parts_of_client.type_signature.result[0])
    def products_of_mean(parts: Sequence[client_work.Weights]) -> tf.Tensor:
        return inner_products([tuple(part) for part in parts])

    @tff.federated_computation(
        tff.FederatedType(parts_of_client.type_signature.parameter[0], tff.SERVER),
        tff.FederatedType(parts_of_client.type_signature.parameter[1], tff.CLIENTS),
    )
    def decompose(weights: tff.Value, data: tff.Value) -> Mapping[str, tff.Value]:
        of_clients = tff.federated_map(parts_of_client, (tff.federated_broadcast(weights), data))
        mean = tff.federated_mean(of_clients[0], of_clients[2])
        return collections.OrderedDict(clients=of_clients[1], cohort=tff.federated_map(products_of_mean, mean))

    return decompose


def inner_products(parts: Sequence[client_work.Weights]) -> tf.Tensor:
    """float32, shape (P, P): the inner product of each two of P structures of tensors."""
    flat = tf.stack([tf.concat([tf.reshape(tensor, [-1]) for tensor in part], axis=0) for part in parts])
    return tf.matmul(flat, flat, transpose_b=True)
