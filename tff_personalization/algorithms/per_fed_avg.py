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

from tff_personalization import local_training, optimizers
from tff_personalization.algorithms import client_work, meta_learning, method
from tff_personalization.models import functional
from tff_personalization.settings import Setting


class Settings(method.Federated):
    """The settings of Per-FedAvg."""

    local_steps = method.LOCAL_STEPS
    inner_learning_rate = method.INNER_LEARNING_RATE
    hessian_delta = Setting(
        0.001,
        "δ of per_fed_avg's Hessian-vector product by a difference of gradients (HF); 0 leaves the product out (FO).",
        least=0,
    )


def build_per_fed_avg(
    model: functional.SeededModel,
    client_optimizer: tff.learning.optimizers.Optimizer,
    server_optimizer: tff.learning.optimizers.Optimizer,
    local_steps: int,
    batch_size: int,
    inner_learning_rate: float,
    hessian_delta: float,
    shuffle: bool = True,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
) -> tff.learning.templates.LearningProcess:
    """Builds Per-FedAvg as a learning process; other arguments as `reptile.build_reptile`.

    A round's measurements are those on D, before the inner step of each local step.

    Args:
        model: the model θ to train.
        client_optimizer: takes the local steps, with v − α d for a gradient; plain SGD with rate β in the paper.
        server_optimizer: takes one step a round, with the mean delta as its gradient.
        local_steps: K.
        batch_size: the size of D, D′ and D″; a client with fewer examples takes all of them.
        inner_learning_rate: α.
        hessian_delta: δ of the variant HF; 0 for the variant FO.
        shuffle: whether clients permute their examples in each epoch.
        aggregator: how deltas are aggregated; by default their mean.
    """
    training = local_training.LocalTraining(model, client_optimizer, batch_size, shuffle=shuffle)

    def shifted(weights, factor, direction):
        return tuple(w + factor * d for w, d in zip(weights, direction, strict=True))

    def update(theta, client, state):
        del state
        walk_seed, draws_seed = tf.unstack(tf.random.split(client.seed))

        def take_step(step, state):
            seeds = tf.unstack(tf.random.split(tf.random.fold_in(draws_seed, step), 4))
            second, third = (meta_learning.draw_batch(client.examples, batch_size, s) for s in seeds[:2])

            def meta_gradient(w, gradient):
                v = training.gradient(shifted(w, -inner_learning_rate, gradient), second, seeds[2]).gradients
                if hessian_delta == 0:
                    return v
                above, below = (
                    training.gradient(shifted(w, sign * hessian_delta, v), third, seeds[3]).gradients
                    for sign in (1, -1)
                )
                d = tuple((a - b) / (2 * hessian_delta) for a, b in zip(above, below, strict=True))
                return shifted(v, -inner_learning_rate, d)

            return step + 1, training.steps(state, client.examples, walk_seed, step, step + 1, meta_gradient)

        _, end = tf.while_loop(
            lambda step, _: step < client.steps_done(local_steps),
            take_step,
            (0, training.initial_state(theta, round_number=client.round_number)),
            parallel_iterations=1,
        )
        return client_work.update_from(theta, end)

    work = client_work.build_client_work(model, update, "uniform")
    return client_work.compose(model, work, server_optimizer, aggregator)


def _build(setup: method.Setup[Settings]) -> method.Training:
    settings = setup.settings
    process = build_per_fed_avg(
        setup.model,
        setup.optimizer(optimizers.CLIENT),
        setup.optimizer(optimizers.SERVER),
        local_steps=settings.local_steps,
        batch_size=settings.batch_size,
        inner_learning_rate=settings.inner_learning_rate,
        hessian_delta=settings.hessian_delta,
        aggregator=setup.aggregator,
    )
    return setup.training("per_fed_avg", process)


METHOD = method.Method(
    description="Per-FedAvg: K local steps down the loss after one inner step; HF, or FO with --hessian_delta=0",
    differs="--server_sgd_momentum=0 is the paper's server",
    settings=Settings,
    build=_build,
)
