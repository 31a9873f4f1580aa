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

from tff_personalization import optimizers
from tff_personalization.algorithms import client_work, method, stateful_clients
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights


class Settings(method.Local):
    """The settings of SCAFFOLD. It has no aggregator, because changes of control variates are summed directly."""

    server = optimizers.SERVER
    local_epochs = method.LOCAL_EPOCHS


def build_scaffold(setup: method.Setup[Settings], population: int) -> stateful_clients.StatefulProcess:
    """Builds SCAFFOLD as a process whose clients keep their control variates.

    Args:
        setup: what it is built from. The client optimizer is SGD without momentum, with learning rate η_l.
        population: N, the number of clients from which cohorts are drawn.
    """
    settings, training = setup.settings, setup.local_training()
    zeros = tuple(np.zeros_like(w) for w in setup.model.initial_weights[0])

    def update(x: Weights, client: ClientRound, state: State) -> ClientUpdate:
        c, c_i = state.server, state.client
        correction = tuple(a - b for a, b in zip(c, c_i, strict=True))

        def corrected(weights: Weights, gradients: Weights) -> Weights:
            del weights
            return tuple(g + d for g, d in zip(gradients, correction, strict=True))

        end = training.train_epochs(x, client, settings.local_epochs, corrected)
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
    return setup.stateful_process(update, "uniform", zeros, server_state=server_control_variate)


def _build(setup: method.RunSetup[Settings]) -> method.Training:
    return setup.training("scaffold", build_scaffold(setup, population=len(setup.train_clients)))


METHOD = method.Method(
    description="SCAFFOLD: local steps corrected by control variates; each client keeps its own",
    differs="the paper's server has no momentum (--server_sgd_momentum=0)",
    settings=Settings,
    build=_build,
    plain_sgd=True,
)
