"""APFL's personal step only: mixes a local model with the global model; the client fixes or learns its share α.

Deng, Kamani, Mahdavi, "Adaptive Personalized Federated Learning" (2020), arXiv 2003.13461, Algorithm 1, for a client
that takes no part in training, so the global model w = θ does not change. It is also the model interpolation (MAPPER)
of Mansour et al., "Three Approaches for Personalization with Applications to Federated Learning" (2020), arXiv
2002.10619, on weights. The method `apfl` trains local models and shares from round to round.

    v ← θ;  α ← the given share
    for each batch of each epoch:
        v̄ ← α v + (1 − α) θ
        v ← v − η ∇_v f_i(v̄)                        # ∇_v f_i(v̄) = α ∇ f_i(v̄)
        α ← [0, 1] ∩ α − η ⟨v − θ, ∇ f_i(v̄)⟩        # projected; unless α is fixed; with v and α from before the step

After an epoch v̄ is evaluated. With a fixed α and plain SGD, v̄ equals fine-tuning at α² times the learning rate. Only
a learnt α makes a difference.
"""

import tensorflow as tf

from tff_personalization.algorithms import apfl, shares
from tff_personalization.personalization import adaptation
from tff_personalization.personalization.adaptation import Client, Curve, FineTuning, Strategy, Tuning


class Settings(apfl.Mixture, FineTuning):
    """The settings of APFL."""


def _curve(client: Client, tuning: Tuning[Settings]) -> Curve:
    model = adaptation.Reparameterized(
        client.model, lambda weights: shares.mixture(weights[:-1], client.theta, weights[-1])
    )
    trained = slice(None) if tuning.settings.apfl_learn_alpha else slice(-1)
    return adaptation.curve_by_epoch(
        client,
        tuning,
        shares.WithShares(model, tuning.optimizer, tuning.batch_size, trained=trained, shares=slice(-1, None)),
        (*client.theta, tf.constant(tuning.settings.apfl_alpha, tf.float32)),
        lambda weights: client.judge(model, weights, client.test),
    )


STRATEGY = Strategy(
    "APFL's personal step only: a mixture of a local and the global model",
    _curve,
    settings=Settings,
    gives_weights=True,
    differs=(
        "only one personal step, with θ fixed; the method apfl takes such steps in each round; α is updated after "
        "each batch"
    ),
)
