"""Fine-tunes the model of `ifca` that fits the client's train part best.

    j ← argmin_j f_i(θ_j)          # on client i's train part
    φ_0 ← θ_j
    φ_1 … φ_E ← fine-tuning of all layers of φ_0

Epoch 0 is the chosen model.
"""

from tff_personalization.algorithms import ifca
from tff_personalization.personalization import fine_tuning
from tff_personalization.personalization.adaptation import Client, Strategy, Tuning, Weights


def _best_cluster(client: Client, tuning: Tuning) -> Weights:
    del tuning
    models = ifca.models_of(client.weights)
    return ifca.take(models, ifca.choose(client.model, models, client.train))


STRATEGY = Strategy(
    "choose the model with the lowest loss on the train part, then fine-tune all its layers",
    fine_tuning.fine_tuning(start=_best_cluster),
    needs=ifca.SEVERAL_MODELS,
    gives_weights=True,
)
