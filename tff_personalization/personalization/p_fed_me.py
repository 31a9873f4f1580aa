"""pFedMe's personal step only: the point that defines the Moreau envelope of the client's loss at the global model.

Dinh et al., "Personalized Federated Learning with Moreau Envelopes" (2020), arXiv 2006.08848: the method `p_fed_me`'s
local steps, by a client that takes no part in training:

    w_i ← θ;  θ_i ← θ
    for each batch D of each epoch:
        K times: θ_i ← personalization optimizer on ∇ f_i(θ_i; D) + λ (θ_i − w_i)
        w_i ← w_i − η λ (w_i − θ_i)

After an epoch θ_i is evaluated.
"""

from tff_personalization.algorithms import p_fed_me
from tff_personalization.personalization import adaptation
from tff_personalization.personalization.adaptation import Client, Curve, FineTuning, Strategy, Tuning


class Settings(p_fed_me.Envelope, FineTuning):
    """The settings of pFedMe."""


def _curve(client: Client, tuning: Tuning[Settings]) -> Curve:
    training = p_fed_me.EnvelopeTraining(client.model, tuning.optimizer, tuning.batch_size, tuning.settings)
    return adaptation.curve_by_epoch(
        client,
        tuning,
        training,
        (*client.theta, *client.theta),
        lambda weights: client.judge(client.model, training.theta(weights), client.test),
    )


STRATEGY = Strategy(
    "pFedMe's personal step only: the solution of its inner problem at the global model",
    _curve,
    settings=Settings,
    gives_weights=True,
    differs="only one personal step, from θ; the method p_fed_me takes such steps in each round",
)
