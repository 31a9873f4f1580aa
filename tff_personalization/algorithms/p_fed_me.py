"""pFedMe, Dinh et al. (NeurIPS 2020, arXiv 2006.08848), Algorithm 1.

    F_i(w) = min_θ f_i(θ) + λ/2 ‖θ − w‖² is the Moreau envelope of client i's loss
    θ_i, near its minimum, is the client's personal model. R: local steps, each on a new batch
    K: steps of the inner problem; η: outer rate; β: server rate
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            w_i ← w;  θ_i ← w
            for each of R batches D:
                K times: θ_i ← client optimizer on ∇ f_i(θ_i; D) + λ (θ_i − w_i), starting at the last θ_i
                w_i ← w_i − η λ (w_i − θ_i)
            g_i ← w − w_i;  client i keeps θ_i
        w ← w − β (1/M) Σ g_i          # or another server optimizer; β: its learning rate

As in the authors' code, θ_i carries over from batch to batch, and ηλ is 0.075 by default. In that code all clients do
local steps in each round, and only a cohort is averaged. Here only the cohort does local steps. The paper's server has
no momentum: --server_sgd_momentum=0. A held-out client has no θ_i; the strategy `p_fed_me` finds one from w.
"""

from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import client_work, method, stateful_clients
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.models import functional
from tff_personalization.settings import Group, Setting


class Envelope(Group):
    """The settings of pFedMe's local steps, as a method and as a strategy."""

    p_fed_me_lambda = Setting(
        15.0,
        "λ of pFedMe: how strongly the personal model is pulled back to the local one.",
        theme="personalization",
        least=0,
    )
    p_fed_me_steps = Setting(5, "K of pFedMe: steps for its inner problem.", theme="personalization", least=1)
    p_fed_me_learning_rate = Setting(
        0.005,
        "η of pFedMe: after each batch, the local model moves ηλ of the way to the personal model.",
        theme="personalization",
        positive=True,
    )


class Settings(Envelope, method.Federated):
    """The settings of pFedMe."""

    local_steps = method.LOCAL_STEPS


class EnvelopeTraining(local_training.LocalTraining):
    """Local training with pFedMe's step. Its weights are w_i, then θ_i."""

    def __init__(
        self,
        model: functional.SeededModel,
        optimizer: tff.learning.optimizers.Optimizer,
        batch_size: int,
        settings: Envelope,
        shuffle: bool = True,
    ):
        """See the class; `optimizer` takes the steps of the inner problem, with a fresh state in each batch."""
        self._size = len(model.initial_weights[0])
        super().__init__(model, optimizer, batch_size, trained=slice(self._size, None), shuffle=shuffle)
        self._inner = local_training.LocalTraining(model, optimizer, batch_size=None, shuffle=False)
        self._settings = settings

    def step(
        self,
        state: local_training.LocalState,
        batch: local_training.Examples,
        dropout_seed: tf.Tensor,
        adjust: local_training.AdjustFn | None = None,
    ) -> local_training.LocalState:
        """Moves θ_i by K steps of the inner problem on the batch, then moves w_i a fraction ηλ of the way to θ_i."""
        del adjust
        strength = self._settings.p_fed_me_lambda
        w, theta = state.weights[: self._size], state.weights[self._size :]
        start = self._inner.initial_state(theta, state.optimizer_state)
        pull = local_training.proximal(strength, w)
        end = self._inner.steps(start, batch, dropout_seed, 0, self._settings.p_fed_me_steps, pull)
        share = strength * self._settings.p_fed_me_learning_rate
        w = tuple(a - share * (a - b) for a, b in zip(w, end.weights, strict=True))
        return local_training.LocalState(
            (*w, *end.weights),
            state.optimizer_state,
            state.loss_sum + end.loss_sum,
            state.correct + end.correct,
            state.predictions + end.predictions,
            state.examples + end.examples,
            state.steps + 1,
        )

    def of_w(self, state: local_training.LocalState) -> local_training.LocalState:
        """The state with only the weights w_i."""
        return state._replace(weights=state.weights[: self._size])

    def theta(self, weights: tuple[Any, ...]) -> tuple[Any, ...]:
        """θ_i, from the weights of a state."""
        return weights[self._size :]


def build_p_fed_me(setup: method.Setup[Settings]) -> stateful_clients.StatefulProcess:
    """Builds pFedMe as a process whose clients keep θ_i. Its visits count the examples of all inner steps."""
    settings, model = setup.settings, setup.model
    training = EnvelopeTraining(model, setup.optimizer(optimizers.CLIENT), settings.batch_size, settings, setup.shuffle)

    def update(w: Weights, client: ClientRound, state: State) -> ClientUpdate:
        del state  # only the client itself uses θ_i: its next round starts from the global model
        end = training.train((*w, *w), client, settings.local_steps)
        return client_work.update_from(w, training.of_w(end), state=training.theta(end.weights))

    return setup.stateful_process(
        update, "uniform", model.initial_weights[0], personal=lambda weights, theta: (model, theta)
    )


METHOD = method.Method(
    description="pFedMe: the global model minimizes the mean of the Moreau envelopes of the clients' losses",
    serves="both",
    differs=(
        "the paper's server has no momentum (--server_sgd_momentum=0); only the cohort takes local steps (in the "
        "authors' code, all clients); the mean is uniform, as in the paper (in the authors' code, it is weighted by "
        "examples)"
    ),
    settings=Settings,
    build=method.one_stage("p_fed_me", build_p_fed_me),
    strategies=("p_fed_me", "fine_tune"),
)
