"""APFL's personal step only: a mixture of a local and the global model, its share α fixed or learnt by the client.

Deng, Kamani, Mahdavi, "Adaptive Personalized Federated Learning" (2020), arXiv 2003.13461, Algorithm 1, for a client
that takes no part in training, so that the global model w = θ stays; the model interpolation (MAPPER) of Mansour et
al., "Three Approaches for Personalization with Applications to Federated Learning" (2020), arXiv 2002.10619, in the
space of weights. The method `apfl` trains local models and shares from round to round.

    v ← θ;  α ← the given one
    for each batch of each epoch:
        v̄ ← α v + (1 − α) θ
        v ← v − η ∇_v f_i(v̄)                        # ∇_v f_i(v̄) = α ∇ f_i(v̄)
        α ← [0, 1] ∩ α − η ⟨v − θ, ∇ f_i(v̄)⟩        # projected; unless α is fixed; with v and α from before the step

After an epoch v̄ is judged. With a fixed α and plain SGD, v̄ is what fine-tuning at α² times the learning rate gives; a
learnt α makes the difference.
"""

import tensorflow as tf

from tff_personalization.algorithms import apfl, shares
from tff_personalization.personalization import adaptation
from tff_personalization.personalization.adaptation import Client, Curve, FineTuning, Strategy, Tuning


class Settings(apfl.Mixture, FineTuning):
    """What APFL reads."""


def _curve(client: Client, tuning: Tuning[Settings]) -> Curve:
    model = adaptation.Reparameterized(
        client.model, lambda weights: shares.mixture(weights[:-1], client.theta, weights[-1])
    )
    trained = slice(None) if tuning.settings.apfl_learn_alpha else slice(-1)
    return adaptation.curve_by_epoch(
        shares.WithShares(model, tuning.optimizer, tuning.batch_size, trained=trained, shares=slice(-1, None)),
        (*client.theta, tf.constant(tuning.settings.apfl_alpha, tf.float32)),
        client.judgement_of_theta,
        client.train,
        lambda weights: client.judge(model, weights, client.test),
        client.seed,
        tuning.epochs,
    )


STRATEGY = Strategy(
    "APFL's personal step only: a mixture of a local and the global model",
    _curve,
    settings=Settings,
    gives_weights=True,
    differs=(
        "one personal step only, with θ fixed: those of rounds are the method apfl's; the share moves in every batch"
    ),
)
