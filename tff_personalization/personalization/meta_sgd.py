"""Fine-tuning with the learning rates that Meta-SGD learnt, Li et al. (2017, arXiv 1707.09835): one for each weight.

    φ ← θ
    for each batch b of each epoch:
        φ ← φ − a ∘ ∇ f_i(φ; b)                 # ∘: weight by weight; a is part of the global weights

The rates do not change during fine-tuning.
"""

from tff_personalization.algorithms import meta_learning, meta_sgd
from tff_personalization.personalization import adaptation
from tff_personalization.personalization.adaptation import Client, Curve, Strategy, Tuning
from tff_personalization.settings import Group


class Settings(Group):
    """The settings of fine-tuning at learnt rates, without an optimizer."""

    personalization_batch_size = adaptation.BATCH_SIZE


def _curve(client: Client, tuning: Tuning[Settings]) -> Curve:
    (rates,) = client.weights.added(meta_sgd.RATES)
    return adaptation.curve_by_epoch(
        client,
        tuning,
        meta_learning.training_at_rates(client.model, tuning.batch_size),
        client.theta,
        lambda weights: client.judge(client.model, weights, client.test),
        adjust=meta_learning.at_rates(rates),
    )


STRATEGY = Strategy(
    "fine-tune all layers by SGD with the learning rates that Meta-SGD trained",
    _curve,
    settings=Settings,
    needs=meta_sgd.RATES,
    gives_weights=True,
)
