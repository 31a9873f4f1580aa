"""Local-only training: no federation. Each test client trains an untrained model on its own train part.

It shows what a client can do by itself. The strategy `local_only` does the work, in `personalization_epochs` epochs.
"""

from tff_personalization import cohorts, global_weights
from tff_personalization.algorithms import method
from tff_personalization.settings import Group


def _build(setup: method.RunSetup[Group]) -> method.Training:
    start = global_weights.GlobalWeights.initial(setup.model)
    return method.Training((), lambda round_number: cohorts.Cohort((), []), start)


METHOD = method.Method(
    description="every test client trains from scratch",
    serves="held-out",
    settings=Group,
    build=_build,
    strategies=("local_only",),
    trains=False,
)
