"""Local-only training: no federation. Each test client trains an untrained model on its own train part.

What a client could do alone; the strategy `local_only` does the work, in `personalization_epochs` epochs.
"""

from tff_personalization import methods


def _build(setup: methods.Setup) -> methods.Training:
    del setup
    return methods.Training(stages=(), cohort=lambda round_number: methods.Cohort((), []))


METHOD = methods.Method(
    description="every test client trains from scratch",
    reads=(),
    build=_build,
    strategies=("local_only",),
    trains=False,
)
