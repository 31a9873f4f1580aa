"""FedProto, Tan et al. (AAAI 2022, arXiv 2105.00243), Algorithm 1: clients share class prototypes, not weights.

φ_i: client i's model, which the client keeps and which starts as the initial model; h(φ; x): what the last layer of φ
is given; C(j): prototype of class j, C the global ones; n_ij: client i's examples of class j; λ; E, β as in FedAvg(E)
for each round:
    sample a cohort of M clients
    for each client i of the cohort:
        φ_i ← E epochs of the client optimizer (β), starting at φ_i, on the mean over a batch of
              cross-entropy + λ × mean of (h(φ_i; x) − C(y))² over the units            # the latter if C(y) exists
        C_i(j) ← mean of h(φ_i; x) over client i's examples of class j
    C(j) ← Σ_i n_ij C_i(j) / Σ_i n_ij for each class j that the cohort has

A participant answers with the class whose prototype is nearest to h(φ_i; x): C(j) as the client last received it or,
for a class that had none, its own C_i(j). No weight is sent or averaged: the global model stays the initial one, and a
held-out client would train from scratch. As in the authors' code, the distance in the loss is a mean over units. Their
code averages clients' prototypes without weights; the weighted mean is the paper's equation 6.
"""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors, local_training, optimizers
from tff_personalization.algorithms import client_work, method, partial_model, stateful_clients
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.models import functional
from tff_personalization.settings import Setting


class Settings(method.Local):
    """The settings of FedProto. It has no server optimizer and no aggregator, because no weights are sent."""

    local_epochs = method.LOCAL_EPOCHS
    fed_proto_lambda = Setting(
        1.0, "λ of fed_proto: weight of the distance from the prototypes in the local loss.", least=0
    )


class WithPrototypes(local_training.LocalTraining):
    """Local training whose loss adds λ times the distance of an example from the prototype of its class."""

    def __init__(
        self,
        model: functional.SeededModel,
        optimizer: tff.learning.optimizers.Optimizer,
        batch_size: int,
        prototypes: tf.Tensor,
        seen: tf.Tensor,
        strength: float,
        shuffle: bool,
    ):
        """See the class.

        Args:
            model: the model.
            optimizer: takes the steps.
            batch_size: examples a step.
            prototypes: C, float32 of shape (classes, units).
            seen: which classes have a prototype, bool of shape (classes,).
            strength: λ.
            shuffle: whether examples are permuted in each epoch.
        """
        super().__init__(model, optimizer, batch_size, shuffle=shuffle)
        self._network, self._prototypes, self._seen, self._strength = model, prototypes, seen, strength

    def _gradient(
        self, weights: Weights, batch: local_training.Examples, dropout_seed: tf.Tensor
    ) -> tuple[Weights, tf.Tensor, tf.Tensor]:
        kernel, bias = weights[self._network.head]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            h = self._network.logits(functional.without_head(self._network, weights), batch.x, dropout_seed)
            logits = functional.dense(h, kernel, bias)
            squares = tf.reduce_mean((h - tf.gather(self._prototypes, batch.y)) ** 2, axis=1)
            distance = tf.reduce_mean(tf.where(tf.gather(self._seen, batch.y), squares, 0.0))
            loss = self._network.scoring.loss(logits, batch.y) + self._strength * distance
        return tape.gradient(loss, weights), loss, logits


def sums_by_class(
    model: functional.SeededModel, weights: client_work.Weights, examples: local_training.Examples
) -> tuple[tf.Tensor, tf.Tensor]:
    """Σ_x h(φ; x) of each class, float32 of shape (classes, units), and n_j, float32 of shape (classes,)."""
    after_stem = local_training.features(model, weights, examples)
    h = model.after_stem.logits(functional.without_head(model, weights), after_stem.x, None)
    of_class = tf.one_hot(examples.y, weights[-1].shape[0])
    return tf.matmul(of_class, h, transpose_a=True), tf.reduce_sum(of_class, axis=0)


def build_fed_proto(setup: method.Setup[Settings]) -> stateful_clients.StatefulProcess:
    """Builds FedProto as a process whose clients keep their models and the prototypes by which they classify."""
    settings, model, client_optimizer = setup.settings, setup.model, setup.optimizer(optimizers.CLIENT)
    if not functional.has_dense_head(model) or len(model.input_spec[1].shape) != 1:
        raise errors.UserError(
            "--method=fed_proto needs one class for each example and a network whose last layer is dense with a bias: "
            "choose another --task or --model."
        )
    initial = model.initial_weights[0]
    units, classes = initial[model.head][0].shape
    no_prototypes = np.zeros((classes, units), np.float32), np.zeros(classes, bool)

    def update(nothing: Weights, client: ClientRound, state: State) -> ClientUpdate:
        phi, (prototypes, seen) = state.client[: len(initial)], state.server
        training = WithPrototypes(
            model,
            client_optimizer,
            settings.batch_size,
            prototypes,
            seen,
            settings.fed_proto_lambda,
            setup.shuffle,
        )
        end = training.train_epochs(phi, client, settings.local_epochs)
        sums, counts = sums_by_class(model, end.weights, client.examples)
        own = tf.math.divide_no_nan(sums, counts[:, tf.newaxis])
        kept = (*end.weights, tf.where(seen[:, tf.newaxis], prototypes, own), seen | (counts > 0))
        found = client_work.update_from(end.weights, end, report=(sums, counts), state=kept)
        visits = tf.shape(client.examples.y)[0]  # for the means of its features
        return found._replace(model_delta=(), extra_examples=visits)

    def next_state(state: Weights, report: Weights) -> Weights:
        (prototypes, seen), (sums, counts) = state, report
        new = counts > 0
        mean = tf.math.divide_no_nan(sums, counts[:, tf.newaxis])
        return tf.where(new[:, tf.newaxis], mean, prototypes), seen | new

    return partial_model.process_without_shared_part(
        model,
        update,
        (*initial, *no_prototypes),
        lambda weights, kept: (_nearest(model, *kept[-2:]), tuple(kept[:-2])),
        server_state=client_work.ServerState(lambda: tuple(map(tf.constant, no_prototypes)), next_state),
    )


def _nearest(model: functional.SeededModel, prototypes: tf.Tensor, seen: tf.Tensor) -> functional.PlainClassifier:
    """The classifier by the nearest prototype. A class without one is 10 nats behind the farthest."""

    def logits(weights: Weights, x: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        h = model.logits(functional.without_head(model, weights), x, dropout_seed)
        nearness = -tf.reduce_sum((h[:, tf.newaxis] - prototypes) ** 2, axis=2)
        farthest = tf.reduce_min(nearness, axis=1, keepdims=True)
        return tf.where(seen, nearness, farthest - 10)

    return functional.PlainClassifier(logits, model.scoring)


METHOD = method.Method(
    description="FedProto: clients keep their models and share the mean features of each class",
    serves="participants",
    differs="prototypes are means over examples, as the paper says (in the authors' code, over clients)",
    settings=Settings,
    build=method.one_stage("fed_proto", build_fed_proto),
    strategies=("fine_tune",),
)
