"""MimeLite, Karimireddy et al. (2021), arXiv 2008.03606, Algorithm 1 without the control variates.

The paper is "Breaking the centralized barrier for cross-device federated learning".

    x: global model, s: state of the base optimizer (such as its momentum), E: local epochs, n_i: examples of client i
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            y_i ← x
            for E epochs, each batch: y_i ← base optimizer's step with the gradient at y_i and the fixed state s
            g_i ← ∇L_i(x; all n_i examples)
        x ← Σ n_i y_i / Σ n_i                                    # or the plain mean, with uniform weights
        s ← base optimizer's state after the gradient Σ n_i g_i / Σ n_i

So clients take steps of centralized momentum SGD, Adam, …. The optimizer's state comes from all clients, and no single
client biases it.

TFF has it as `tff.learning.algorithms.build_weighted_mime_lite`. This implementation uses TFF's base optimizers,
broadcast, mean and server step, but its own client work. TFF's client work draws dropout without a seed, so its runs
cannot be repeated, and it reads a `tf.data` pipeline. Without randomness both give the same numbers. As in TFF, g_i is
the gradient of a training pass, with dropout. If the base optimizer has no state, this is FedAvg(E) with server
learning rate 1.
"""

from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import cohorts, local_training, optimizers
from tff_personalization.algorithms import client_work, composition, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights


class Settings(cohorts.WithStragglers):
    """The settings of MimeLite. It has no aggregator, because gradients are summed directly."""

    base = optimizers.BASE
    batch_size = method.BATCH_SIZE
    local_epochs = method.LOCAL_EPOCHS
    client_weighting = method.CLIENT_WEIGHTING


def build_mime_lite(setup: method.Setup[Settings]) -> tff.learning.templates.LearningProcess:
    """Builds MimeLite as a learning process, with one optimizer on both sides."""
    settings, model, base = setup.settings, setup.model, setup.optimizer(optimizers.BASE)
    training = local_training.LocalTraining(model, _StateStays(base), settings.batch_size, shuffle=setup.shuffle)

    def update(x: Weights, client: ClientRound, state: State) -> ClientUpdate:
        examples = client.examples
        end = training.train_epochs(x, client, settings.local_epochs, optimizer_state=state.server)
        whole = training.gradient(x, examples, tf.random.fold_in(client.seed, -1))
        size = tf.cast(tf.shape(examples.y)[0], tf.float32)
        weight = size if settings.client_weighting == "examples" else 1.0
        report = tuple(weight * g for g in whole.gradients), tf.convert_to_tensor(weight)
        return client_work.update_from(x, end, report=report)._replace(extra_examples=whole.examples)

    def next_state(optimizer_state: Any, report: tuple[Weights, tf.Tensor]) -> Any:
        gradients, weight = report
        mean = tuple(g / weight for g in gradients)
        # The new state does not depend on the weights.
        new_state, _ = base.next(optimizer_state, tuple(tf.zeros_like(g) for g in mean), mean)
        return new_state

    server_state = client_work.ServerState(
        lambda: training.initial_optimizer_state(model.initial_weights[0]), next_state
    )
    take_over_mean = tff.learning.optimizers.build_sgdm(1.0)
    return composition.build_process(
        model, update, settings.client_weighting, take_over_mean, server_state=server_state
    )


class _StateStays(tff.learning.optimizers.Optimizer):
    """An optimizer whose state never changes."""

    def __init__(self, optimizer: tff.learning.optimizers.Optimizer):
        self._optimizer = optimizer

    def initialize(self, specs: Any) -> Any:
        return self._optimizer.initialize(specs)

    def next(self, state: Any, weights: Weights, gradients: Weights) -> tuple[Any, Weights]:
        _, weights = self._optimizer.next(state, weights, gradients)
        return state, weights


METHOD = method.Method(
    description="MimeLite: local steps use an optimizer state that the full gradients of the cohort update",
    differs="the mean is weighted by examples (in the paper, it is uniform: --client_weighting=uniform)",
    settings=Settings,
    build=method.one_stage("mime_lite", build_mime_lite),
)
