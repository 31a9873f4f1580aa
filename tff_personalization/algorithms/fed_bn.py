"""FedBN, Li et al. (ICLR 2021, arXiv 2102.07623), for normalization that keeps no running statistics.

    γ_i, β_i: scales and offsets of client i's normalization layers, which the client keeps and which start as the
    initial ones; θ: all other weights, shared; E, α, η, n_i as in FedAvg(E), with η for the client learning rate
    for each round:
        sample a cohort of M clients                    # the paper: all clients
        for each client i of the cohort:
            (θ_i, γ_i, β_i) ← E epochs of the client optimizer (η) on client i's data, starting at (θ, γ_i, β_i)
            g_i ← θ − θ_i
        θ ← server optimizer (α) applied to Σ n_i g_i / Σ n_i       # the paper: the plain mean, with uniform weights

The paper's clients also keep the running means and variances of batch normalization. A model here has only weights
that gradients train, so its layers normalize by each example's own statistics: group or layer normalization. With
them, FedBN is FedPer with scales and offsets in place of the head.

The paper has no held-out clients. Here a held-out client starts from the initial scales and offsets, which no client
has trained. The paper's server has no momentum: --server_sgd_momentum=0.
"""

from tff_personalization import errors
from tff_personalization.algorithms import fed_avg, fed_per, method, partial_model, stateful_clients


def build_fed_bn(setup: method.Setup[fed_avg.Settings]) -> stateful_clients.StatefulProcess:
    """Builds FedBN as a process whose clients keep the weights of their normalization layers.

    Raises:
        UserError: the model has no normalization layers.
    """
    model = setup.model
    if not model.normalization:
        raise errors.UserError(
            "--model: the network has no normalization layers, whose weights --method=fed_bn keeps local: choose a "
            "network with GroupNormalization or LayerNormalization, such as --model=cnn_group_norm for characters."
        )
    return fed_per.build_with_kept_parts(setup, partial_model.Split(model, model.normalization))


METHOD = method.Method(
    description="FedBN without running statistics: each client keeps its normalization layers' scales and offsets",
    serves="both",
    differs=(
        "group or layer normalization, of which clients keep γ and β (in the paper, batch normalization, of which "
        "clients also keep the running means and variances); a cohort trains in each round (in the paper, all "
        "clients); the paper's server has no momentum (--server_sgd_momentum=0); the mean is weighted by examples "
        "(in the paper, it is uniform: --client_weighting=uniform); a held-out client starts with γ = 1 and β = 0"
    ),
    settings=fed_avg.Settings,
    build=method.one_stage("fed_bn", build_fed_bn),
)
