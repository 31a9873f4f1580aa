"""APFL, Deng, Kamani, Mahdavi (2020), arXiv 2003.13461, Algorithm 1, with shares that clients learn.

    w: global model; v_i, α_i: client i's local model and its share of the mixture v̄_i = α_i v_i + (1 − α_i) w_i
    The client keeps v_i and α_i; they start as the initial model and the given share. E, β, n_i as in FedAvg(E)
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            w_i ← w
            for each batch of E epochs, all three from the values before the batch:
                w_i ← w_i − β ∇ f_i(w_i)                          # or any other client optimizer
                v_i ← v_i − β ∇_v f_i(v̄_i)                        # ∇_v f_i(v̄_i) = α_i ∇ f_i(v̄_i)
                α_i ← [0, 1] ∩ α_i − β ⟨v_i − w_i, ∇ f_i(v̄_i)⟩    # projected; unless α is fixed
            g_i ← w − w_i
        w ← server optimizer applied to Σ n_i g_i / Σ n_i          # the paper: the plain mean, with uniform weights

A client's personal model is α_i v_i + (1 − α_i) w. The authors' code updates α_i only in the first batch of a round and
adds 0.02 α_i to its slope. The paper's server has no momentum: --server_sgd_momentum=0. A held-out client has neither
v_i nor α_i: the strategy `apfl` finds them from w.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import client_work, fed_avg, method, shares, stateful_clients
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.settings import Group, Setting


class Mixture(Group):
    """The settings of APFL's mixture, as a method and as a strategy."""

    apfl_alpha = Setting(
        0.5, "α of APFL: share of the local model in the mixture.", theme="personalization", least=0, most=1
    )
    apfl_learn_alpha = Setting(
        True,
        "APFL: let each client learn its α on its train part, starting at --apfl_alpha.",
        theme="personalization",
    )


class Settings(Mixture, fed_avg.Settings):
    """The settings of APFL."""


class MixtureTraining(shares.WithShares):
    """Local training of w_i, v_i and α_i together. The weights have this order; the metrics are those of w_i."""

    def __init__(self, *arguments: Any, fixed_alpha: float | None, **named: Any):
        """See the class; α_i stays `fixed_alpha` if it is given."""
        bounds = (0.0, 1.0) if fixed_alpha is None else (fixed_alpha, fixed_alpha)
        super().__init__(*arguments, shares=slice(-1, None), bounds=bounds, **named)
        self._learn_alpha = fixed_alpha is None

    def _gradient(
        self, weights: Weights, batch: local_training.Examples, dropout_seed: tf.Tensor
    ) -> tuple[Weights, tf.Tensor, tf.Tensor]:
        size = len(weights) // 2
        w, v, alpha = weights[:size], weights[size:-1], weights[-1]
        of_w, loss, logits = super()._gradient(w, batch, dropout_seed)
        of_mixture, _, _ = super()._gradient(shares.mixture(v, w, alpha), batch, dropout_seed)
        slopes = [tf.reduce_sum((a - b) * g) for a, b, g in zip(v, w, of_mixture, strict=True)]
        slope = tf.add_n(slopes) if self._learn_alpha else tf.zeros_like(alpha)
        return (*of_w, *(alpha * g for g in of_mixture), slope), loss, logits


def build_apfl(setup: method.Setup[Settings]) -> stateful_clients.StatefulProcess:
    """Builds APFL as a process whose clients keep v_i and α_i. The client optimizer steps w_i, v_i and α_i."""
    settings, model = setup.settings, setup.model
    training = MixtureTraining(
        model,
        setup.optimizer(optimizers.CLIENT),
        settings.batch_size,
        shuffle=setup.shuffle,
        fixed_alpha=None if settings.apfl_learn_alpha else settings.apfl_alpha,
    )

    def update(w: Weights, client: ClientRound, state: State) -> ClientUpdate:
        end = training.train_epochs((*w, *state.client), client, settings.local_epochs)
        of_w, kept = end.weights[: len(w)], end.weights[len(w) :]
        found = client_work.update_from(w, end._replace(weights=of_w))
        return found._replace(examples=2 * end.examples, state=kept)

    return setup.stateful_process(
        update,
        settings.client_weighting,
        (*model.initial_weights[0], np.float32(settings.apfl_alpha)),
        personal=lambda weights, kept: (model, shares.mixture(kept[:-1], weights, kept[-1])),
    )


METHOD = method.Method(
    description="APFL: FedAvg(E), and each client also keeps its own model and a share that mixes the two",
    serves="both",
    differs=(
        "the paper's server has no momentum (--server_sgd_momentum=0); the mean is weighted by examples (in the "
        "paper, it is uniform: --client_weighting=uniform); a client updates its share α after each batch (in the "
        "authors' code, once a round with a decay of 0.02 α)"
    ),
    settings=Settings,
    build=method.one_stage("apfl", build_apfl),
    strategies=("apfl", "fine_tune"),
)
