"""The strategies by name: ways to adapt a global model to a client. Adding one is one line here."""

from tff_personalization.personalization import (
    apfl,
    best_cluster,
    ditto,
    early_stopping,
    fine_tuning,
    knn_per,
    p_fed_me,
    reconstruct,
)

STRATEGIES = {
    "fine_tune": fine_tuning.ALL_LAYERS,
    "fine_tune_head": fine_tuning.HEAD,
    "fine_tune_biases": fine_tuning.BIASES,
    "fine_tune_adam": fine_tuning.ALL_LAYERS_WITH_ADAM,
    "fine_tune_early_stopping": early_stopping.STRATEGY,
    "ditto": ditto.STRATEGY,
    "p_fed_me": p_fed_me.STRATEGY,
    "apfl": apfl.STRATEGY,
    "knn_per": knn_per.STRATEGY,
    "best_cluster": best_cluster.STRATEGY,
    "reconstruct": reconstruct.STRATEGY,
    "local_only": fine_tuning.LOCAL_ONLY,
}
