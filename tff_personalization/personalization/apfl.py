"""APFL's mixture of a local and the global model, its share α fixed or learnt on the client's train part.

Deng, Kamani, Mahdavi, "Adaptive Personalized Federated Learning" (2020), arXiv 2003.13461, Algorithm 1, for a client
that takes no part in training, so that the global model w = θ stays; the model interpolation (MAPPER) of Mansour et
al., "Three Approaches for Personalization with Applications to Federated Learning" (2020), arXiv 2002.10619, in the
space of weights.

    v ← θ;  α ← the given one
    for each batch of each epoch:
        v̄ ← α v + (1 − α) θ
        v ← v − η ∇_v f_i(v̄)                 # ∇_v f_i(v̄) = α ∇ f_i(v̄)
        α ← α − η ⟨v − θ, ∇ f_i(v̄)⟩          # unless α is fixed; both with v and α from before the step

After an epoch v̄ is judged. α is clipped to [0, 1] where it is used, and stays there once it has left. With a fixed α
and plain SGD, v̄ is what fine-tuning at α² times the learning rate gives; a learnt α makes the difference.
"""

import tensorflow as tf

from tff_personalization import local_training
from tff_personalization.personalization import adaptation
from tff_personalization.personalization.adaptation import Client, Curve, FineTuning, Strategy, Tuning, Weights
from tff_personalization.settings import Setting


class Settings(FineTuning):
    """What APFL reads."""

    apfl_alpha = Setting(
        0.5, "α, the share of the local model in --strategies=apfl's mixture.", theme="personalization", least=0, most=1
    )
    apfl_learn_alpha = Setting(
        True, "Let each client learn its α on its train part, starting at --apfl_alpha.", theme="personalization"
    )


def _curve(client: Client, tuning: Tuning[Settings]) -> Curve:
    def mixture(local_and_alpha: Weights) -> Weights:
        *local, alpha = local_and_alpha
        alpha = tf.clip_by_value(alpha, 0.0, 1.0)
        # θ + α (v − θ): exactly θ where v is θ.
        return tuple(w + alpha * (v - w) for v, w in zip(local, client.theta, strict=True))

    model = adaptation.Reparameterized(client.model, mixture)
    trained = slice(None) if tuning.settings.apfl_learn_alpha else slice(-1)
    return adaptation.curve_by_epoch(
        local_training.LocalTraining(model, tuning.optimizer, tuning.batch_size, trained=trained),
        (*client.theta, tf.constant(tuning.settings.apfl_alpha, tf.float32)),
        client.judgement_of_theta,
        client.train,
        lambda weights: client.judge(model, weights, client.test),
        client.seed,
        tuning.epochs,
    )


STRATEGY = Strategy(
    "a mixture of a local and the global model (APFL)",
    _curve,
    settings=Settings,
    gives_weights=True,
)
