"""Local-only training: no federation. Each test client trains an untrained model on its own train part.

What a client could do by itself; the strategy `local_only` does the work, in `personalization_epochs` epochs.
"""

from tff_personalization import global_weights, methods


def _build(setup: methods.Setup) -> methods.Training:
    start = global_weights.GlobalWeights.initial(setup.model)
    return methods.Training((), lambda round_number: methods.Cohort((), []), start)


METHOD = methods.Method(
    description="every test client trains from scratch",
    reads=(),
    build=_build,
    strategies=("local_only",),
    trains=False,
)
