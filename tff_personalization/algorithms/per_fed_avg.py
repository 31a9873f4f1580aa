"""Per-FedAvg, Fallah, Mokhtari, Ozdaglar (2020, NeurIPS, arXiv 2002.07948, Algorithm 1), its variants HF and FO.

    θ: global model, α: rate of the inner step, β: client learning rate, K: local steps (the paper's τ), δ > 0
    meta-objective: mean over clients of F_i(w) = f_i(w − α ∇f_i(w)), the loss after one step on the client's data
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            w ← θ
            K times:
                draw batches D, D′, D″ of i's examples, independently
                v ← ∇f_i(w − α ∇f_i(w; D); D′)
                d ← (∇f_i(w + δ v; D″) − ∇f_i(w − δ v; D″)) / 2δ      # HF: about ∇²f_i(w; D″) v. FO: d ← 0
                w ← w − β (v − α d)
            g_i ← θ − w
        g ← (1/M) Σ g_i
        θ ← server optimizer applied to g              # the paper's mean of the w: --server_sgd_momentum=0

FOMAML and MAML with one inner step take one such step for each client and round; this takes K. The batches D go through
the client's examples epoch by epoch; D′ and D″ are drawn again each time. Both gradients of d use the same dropout.
"""

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training
from tff_personalization.algorithms import client_work, meta_learning, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.settings import Setting


class Settings(method.Federated):
    """The settings of Per-FedAvg."""

    local_steps = method.LOCAL_STEPS
    inner_learning_rate = method.INNER_LEARNING_RATE
    hessian_delta = Setting(
        0.001,
        "δ of per_fed_avg: its Hessian-vector product comes from two gradients at a distance of δ (HF); 0: without "
        "this product, first-order (FO).",
        least=0,
    )


def build_per_fed_avg(setup: method.Setup[Settings]) -> tff.learning.templates.LearningProcess:
    """Builds Per-FedAvg as a learning process, whose client optimizer gets v − α d as gradient.

    D, D′ and D″ have the batch size; a client with fewer examples takes all of them. A round's measurements are those
    on D, before the inner step of each local step.
    """
    settings, training = setup.settings, setup.local_training()
    alpha, delta = settings.inner_learning_rate, settings.hessian_delta

    def shifted(weights: Weights, factor: float, direction: Weights) -> Weights:
        return tuple(w + factor * d for w, d in zip(weights, direction, strict=True))

    def update(theta: Weights, client: ClientRound, state: State) -> ClientUpdate:
        walk_seed, draws_seed = tf.unstack(tf.random.split(client.seed))

        def take_step(step: tf.Tensor, state: local_training.LocalState) -> tuple[tf.Tensor, local_training.LocalState]:
            seeds = tf.unstack(tf.random.split(tf.random.fold_in(draws_seed, step), 4))
            second, third = (meta_learning.draw_batch(client.examples, settings.batch_size, s) for s in seeds[:2])

            def meta_gradient(w: Weights, gradient: Weights) -> Weights:
                v = training.gradient(shifted(w, -alpha, gradient), second, seeds[2]).gradients
                if delta == 0:
                    return v
                above, below = (
                    training.gradient(shifted(w, sign * delta, v), third, seeds[3]).gradients for sign in (1, -1)
                )
                d = tuple((a - b) / (2 * delta) for a, b in zip(above, below, strict=True))
                return shifted(v, -alpha, d)

            return step + 1, training.steps(state, client.examples, walk_seed, step, step + 1, meta_gradient)

        _, end = tf.while_loop(
            lambda step, _: step < client.steps_done(settings.local_steps),
            take_step,
            (0, training.initial_state(theta, round_number=client.round_number)),
            parallel_iterations=1,
        )
        batch = tf.minimum(tf.shape(client.examples.y)[0], settings.batch_size)
        gradients = 1 if delta == 0 else 3  # on D′, and for HF two on D″
        return client_work.update_from(theta, end)._replace(extra_examples=gradients * batch * end.steps)

    return setup.process(update, "uniform")


METHOD = method.Method(
    description="Per-FedAvg: K steps on the loss after an inner step; Hessian-free, first-order with --hessian_delta=0",
    differs="the paper's server has no momentum (--server_sgd_momentum=0)",
    settings=Settings,
    build=method.one_stage("per_fed_avg", build_per_fed_avg),
)
