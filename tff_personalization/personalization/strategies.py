"""The strategies, which adapt a global model to a client, by name. Adding one is one line here."""

from tff_personalization import registries
from tff_personalization.personalization import (
    apfl,
    best_cluster,
    ditto,
    early_stopping,
    fine_tuning,
    knn_per,
    meta_sgd,
    p_fed_me,
    reconstruct,
)
from tff_personalization.personalization.adaptation import Strategy
from tff_personalization.settings import OpenChoices

STRATEGIES: OpenChoices[Strategy] = OpenChoices(
    {
        "fine_tune": fine_tuning.ALL_LAYERS,
        "fine_tune_head": fine_tuning.HEAD,
        "fine_tune_biases": fine_tuning.BIASES,
        "fine_tune_adam": fine_tuning.ALL_LAYERS_WITH_ADAM,
        "fine_tune_early_stopping": early_stopping.STRATEGY,
        "ditto": ditto.STRATEGY,
        "p_fed_me": p_fed_me.STRATEGY,
        "apfl": apfl.STRATEGY,
        "knn_per": knn_per.STRATEGY,
        "knn_per_tuned": knn_per.TUNED,
        "meta_sgd": meta_sgd.STRATEGY,
        "best_cluster": best_cluster.STRATEGY,
        "reconstruct": reconstruct.STRATEGY,
        "reconstruct_head": reconstruct.HEAD,
        "local_only": fine_tuning.LOCAL_ONLY,
    }
)


def register(name: str, strategy: Strategy) -> None:
    """Makes a strategy a choice of `--strategies`. Raises UserError if the name is in use."""
    registries.add(STRATEGIES, "strategy", name, strategy, Strategy)
