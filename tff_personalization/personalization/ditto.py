"""Ditto's personal step only: fine-tuning that is pulled towards the global model.

Li et al., "Ditto: Fair and Robust Federated Learning Through Personalization" (2021), arXiv 2012.04221, Algorithm 1:
the personal model v of client i minimizes h_i(v) = F_i(v) + λ/2 ‖v − w*‖², where the global model w* is θ. Here v
starts at θ; in the method `ditto` each client keeps its v from round to round.

    v ← θ
    for each batch of each epoch:
        v ← v − η (∇ F_i(v; batch) + λ (v − θ))
"""

from tff_personalization import local_training
from tff_personalization.algorithms import ditto
from tff_personalization.personalization import fine_tuning
from tff_personalization.personalization.adaptation import FineTuning, Strategy


class Settings(FineTuning):
    """The settings of Ditto."""

    ditto_lambda = ditto.LAMBDA


STRATEGY = Strategy(
    "Ditto's personal step only: fine-tune all layers, pulled back to the global model",
    fine_tuning.fine_tuning(
        adjust=lambda client, tuning: local_training.proximal(tuning.settings.ditto_lambda, client.theta)
    ),
    settings=Settings,
    gives_weights=True,
    differs=(
        "only one personal step, from θ; it neither trains the global model nor keeps the personal model v, as the "
        "method ditto does"
    ),
)
