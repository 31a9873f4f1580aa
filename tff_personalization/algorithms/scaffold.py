"""SCAFFOLD, Karimireddy et al. (2020), arXiv 1910.06378, Algorithm 1 with option II for the control variates.

    x: global model, c: server control variate, c_i: control variate of client i; c and all c_i start as zero
    η_l: client learning rate, K: local steps, N: clients altogether
    for each round:
        sample a cohort S
        for each client i of S:
            y_i ← x
            K times: y_i ← y_i − η_l (g_i(y_i) − c_i + c)      # g_i: gradient on the next batch
            c_i⁺ ← c_i − c + (x − y_i) / (K η_l)               # option II; kept by client i
        x ← x + η_g (1/|S|) Σ (y_i − x)                        # or another server optimizer; η_g: its learning rate
        c ← c + (1/N) Σ (c_i⁺ − c_i)

c − c_i corrects the client's own direction towards that of all clients. c_i⁺ is the mean of the gradients g_i on the
client's path. K is the number of steps of E epochs on client i's data, so it differs between clients. In the first
round this is FedAvg(E) with uniform weights. Local steps are plain SGD. The server has momentum by default; Algorithm 1
is --server_sgd_momentum=0.
"""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import cohorts, local_training, optimizers
from tff_personalization.algorithms import client_work, method, stateful_clients
from tff_personalization.models import functional


class Settings(cohorts.WithStragglers):
    """The settings of SCAFFOLD. It has no aggregator, because changes of control variates are summed directly."""

    client = optimizers.CLIENT
    server = optimizers.SERVER
    batch_size = method.BATCH_SIZE
    local_epochs = method.LOCAL_EPOCHS


def build_scaffold(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    local_epochs: int,
    batch_size: int,
    population: int,
    shuffle: bool = True,
) -> stateful_clients.StatefulProcess:
    """Builds SCAFFOLD as a process whose clients keep their control variates.

    Args:
        model: the model x to train.
        client_optimizer: takes the local steps; SGD without momentum, with learning rate η_l.
        server_optimizer: takes one step a round, with the mean model delta as its gradient.
        local_epochs: E, passes over a client's data in a round.
        batch_size: examples a local step.
        population: N, the number of clients from which cohorts are drawn.
        shuffle: whether clients permute their examples in each epoch.
    """
    training = local_training.LocalTraining(model, client_optimizer, batch_size, shuffle=shuffle)
    zeros = tuple(np.zeros_like(w) for w in model.initial_weights[0])

    def update(x, client, state):
        c, c_i = state.server, state.client
        correction = tuple(a - b for a, b in zip(c, c_i, strict=True))

        def corrected(weights, gradients):
            del weights
            return tuple(g + d for g, d in zip(gradients, correction, strict=True))

        end = training.train(x, client, local_epochs * training.steps_per_epoch(client.examples), corrected)
        length = tf.cast(end.steps, tf.float32) * end.optimizer_state[tff.learning.optimizers.LEARNING_RATE_KEY]
        kept = tuple(
            tf.math.divide_no_nan(a - y, length) - d for a, y, d in zip(x, end.weights, correction, strict=True)
        )
        change = tuple(new - old for new, old in zip(kept, c_i, strict=True))
        return client_work.update_from(x, end, report=change, state=kept)

    server_control_variate = client_work.ServerState(
        lambda: tuple(tf.constant(zero) for zero in zeros),
        lambda c, changes: tuple(a + change / population for a, change in zip(c, changes, strict=True)),
    )
    return stateful_clients.build_stateful_process(
        model, update, "uniform", zeros, server_optimizer, server_state=server_control_variate
    )


def _build(setup: method.Setup[Settings]) -> method.Training:
    settings = setup.settings
    process = build_scaffold(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        local_epochs=settings.local_epochs,
        batch_size=settings.batch_size,
        population=len(setup.train_clients),
    )
    return setup.training("scaffold", process)


METHOD = method.Method(
    description="SCAFFOLD: local steps corrected by control variates; each client keeps its own",
    differs="--server_sgd_momentum=0 is the paper's server",
    settings=Settings,
    build=_build,
    plain_sgd=True,
)
