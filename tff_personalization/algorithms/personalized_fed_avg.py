"""Personalized FedAvg, Algorithm 2 of arXiv 1909.12488.

    1. θ ← FedAvg(E) from an untrained model, with momentum SGD as server optimizer and a relatively large E
    2. θ ← Reptile(K) from that θ, with Adam as server optimizer: fine-tune the initial model
    3. personalize θ with the client optimizer that was used in training

Both stages count on one round axis. The second begins with round `stage_2_round`, with a fresh server optimizer. Step 3
is the strategies': the personalization optimizer is a role of its own (--personalization_…). Its defaults are those of
the client optimizer; it does not follow what --client_… says.
"""

from tff_personalization import global_weights, methods
from tff_personalization.algorithms import fed_avg, reptile


def _build(setup: methods.Setup) -> methods.Training:
    first = setup.call(fed_avg.build_fed_avg)
    second = setup.call(reptile.build_reptile, server_optimizer=setup.optimizer("stage_2_server"))
    stages = methods.Stage("fed_avg", 1, first), methods.Stage("reptile", setup.settings["stage_2_round"], second)
    start = global_weights.GlobalWeights.initial(setup.model)
    return methods.Training(stages, methods.sampled_cohorts(setup), start)


METHOD = methods.Method(
    description="Personalized FedAvg: FedAvg(E), then Reptile(K) with its own server optimizer",
    reads=(
        *methods.FEDERATED_READS,
        "stage_2_server",
        "local_epochs",
        "local_steps",
        "client_weighting",
        "stage_2_round",
        "stage_1_share",
    ),
    build=_build,
    first_stage="fed_avg",
)
