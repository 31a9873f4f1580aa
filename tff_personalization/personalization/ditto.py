"""Ditto's personal step: fine-tuning that is pulled back to the global model.

Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization" (2021), arXiv 2012.04221, Algorithm 1:
the personal model v of client i minimizes h_i(v) = F_i(v) + λ/2 ‖v − w*‖², where the global model w* is θ.

    v ← θ
    for each batch of each epoch:
        v ← v − η (∇ F_i(v; batch) + λ (v − θ))
"""

from tff_personalization import local_training
from tff_personalization.personalization import fine_tuning
from tff_personalization.personalization.adaptation import FineTuning, Strategy
from tff_personalization.settings import Setting


class Settings(FineTuning):
    """What Ditto reads."""

    ditto_lambda = Setting(
        1.0, "λ, how strongly --strategies=ditto is pulled back to the global model.", theme="personalization", least=0
    )


STRATEGY = Strategy(
    "fine-tune all layers, pulled back to the global model (Ditto)",
    fine_tuning.fine_tuning(
        adjust=lambda client, tuning: local_training.proximal(tuning.settings.ditto_lambda, client.theta)
    ),
    settings=Settings,
    gives_weights=True,
)
