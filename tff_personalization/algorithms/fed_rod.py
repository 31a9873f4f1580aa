"""FedRoD, Chen and Chao (ICLR 2022, arXiv 2107.00778), with linear personal heads: two predictors, two accuracies.

    θ: generic model, which is the global one; p_i: client i's personal head, which the client keeps, zeros at first
    G(x; θ): the generic logits; H(x; θ, p): those of θ with the head p; n_ic: client i's examples of class c
    E, α, β, n_i as in FedAvg(E)
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            θ_i ← θ
            for each batch of E epochs, both from the values before the batch:
                θ_i ← θ_i − β ∇_θ of the cross-entropy of G(x; θ_i) + log n_i        # balanced softmax
                p_i ← p_i − β ∇_p of the cross-entropy of G(x; θ_i) + H(x; θ_i, p_i)   # or any other client optimizer
            g_i ← θ − θ_i
        θ ← server optimizer (α) applied to Σ n_i g_i / Σ n_i

The generic predictor answers with G, which epoch 0 evaluates. A participant's personal predictor answers with G + H,
which `kept` evaluates. No gradient of p_i's loss reaches θ, and none of θ's loss reaches p_i. The paper's server has no
momentum: --server_sgd_momentum=0. The paper's other variants (hypernetworks that make p_i, other balanced losses) are
not implemented. A held-out client has no p_i: strategies start from θ.
"""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors, local_training, optimizers
from tff_personalization.algorithms import client_work, fed_avg, method, partial_model, stateful_clients
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.models import functional


class TwoPredictors(local_training.LocalTraining):
    """Local training of θ_i and p_i together. The weights have this order; the metrics are the personal predictor's."""

    def __init__(
        self,
        model: functional.SeededModel,
        optimizer: tff.learning.optimizers.Optimizer,
        batch_size: int,
        labels: tf.Tensor,
        shuffle: bool,
    ):
        """See the class; `labels` are those of the client's examples, int32 of shape (n,)."""
        super().__init__(model, optimizer, batch_size, shuffle=shuffle)
        self._two, self._labels = model, labels

    def _gradient(
        self, weights: Weights, batch: local_training.Examples, dropout_seed: tf.Tensor
    ) -> tuple[Weights, tf.Tensor, tf.Tensor]:
        scoring = self._two.scoring
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            generic, residual = predictors(self._two, weights, batch.x, dropout_seed)
            counts = tf.reduce_sum(tf.one_hot(self._labels, generic.shape[-1]), axis=0)
            of_theta = scoring.loss(generic + tf.math.log(tf.maximum(counts, 1e-30)), batch.y)
            personal = tf.stop_gradient(generic) + residual
            of_p = scoring.loss(personal, batch.y)
            both = of_theta + of_p
        return tape.gradient(both, weights), of_p, personal


def predictors(
    model: functional.SeededModel, weights: client_work.Weights, x: tf.Tensor, dropout_seed: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """G and H of the weights θ, p, with the same dropout; H has no gradient with respect to θ."""
    size = len(model.initial_weights[0])
    theta, p = weights[:size], weights[size:]
    rest = tuple(map(tf.stop_gradient, theta[model.rest]))
    return model.logits(theta, x, dropout_seed), model.logits((*rest, *p), x, dropout_seed)


def build_fed_rod(setup: method.Setup[fed_avg.Settings]) -> stateful_clients.StatefulProcess:
    """Builds FedRoD as a process whose clients keep p_i."""
    settings, model, client_optimizer = setup.settings, setup.model, setup.optimizer(optimizers.CLIENT)
    partial_model.check_model(model, "fed_rod")
    if len(model.input_spec[1].shape) != 1:
        raise errors.UserError("--method=fed_rod is for tasks with one class for each example: choose another --task.")
    initial = model.initial_weights[0]

    def update(theta: Weights, client: ClientRound, state: State) -> ClientUpdate:
        training = TwoPredictors(model, client_optimizer, settings.batch_size, client.examples.y, setup.shuffle)
        end = training.train_epochs((*theta, *state.client), client, settings.local_epochs)
        theta_i, p = end.weights[: len(initial)], end.weights[len(initial) :]
        return client_work.update_from(theta, end._replace(weights=theta_i), state=p)

    both = functional.PlainClassifier(
        lambda weights, x, dropout_seed: tf.add_n(predictors(model, weights, x, dropout_seed)), model.scoring
    )
    zeros = tuple(np.zeros_like(w) for w in initial[model.head])
    return setup.stateful_process(
        update, settings.client_weighting, zeros, personal=lambda weights, p: (both, (*weights, *p))
    )


METHOD = method.Method(
    description="FedRoD: a generic model trained with a balanced loss; each client adds its own personal head",
    serves="both",
    differs=(
        "the paper's server has no momentum (--server_sgd_momentum=0); personal heads are linear and start at "
        "zero; there is no hypernetwork"
    ),
    settings=fed_avg.Settings,
    build=method.one_stage("fed_rod", build_fed_rod),
)
