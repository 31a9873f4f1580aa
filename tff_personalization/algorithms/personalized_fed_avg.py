"""Personalized FedAvg, Algorithm 2 of arXiv 1909.12488.

    1. θ ← FedAvg(E) from an untrained model, with momentum SGD as server optimizer and a relatively large E
    2. θ ← Reptile(K) from that θ, with Adam as server optimizer: fine-tune the initial model
    3. personalize θ with the client optimizer that was used in training

The stages share one count of rounds. The second begins with round `stage_2_round`, with a fresh server optimizer.
Strategies do step 3: the personalization optimizer is a separate role (--personalization_…). It has the client
optimizer's defaults, but does not follow the flags --client_….
"""

from typing import Any

from tff_personalization import errors, global_weights, optimizers
from tff_personalization.algorithms import fed_avg, method, reptile
from tff_personalization.settings import Setting

_STAGE_1_SHARE = 0.8


class Settings(reptile.Settings, fed_avg.Settings):
    """The settings of both stages, and when the second begins."""

    stage_2_server = optimizers.STAGE_2_SERVER
    stage_2_round = Setting(
        None,
        "First round of the second stage of personalized_fed_avg. Default: follows from --stage_1_share.",
        kind=int,
        least=2,
    )
    stage_1_share: Setting[float | None] = Setting(
        None,
        f"Share of the rounds in the first stage of personalized_fed_avg. Default: {_STAGE_1_SHARE:g}.",
        kind=float,
        least=0,
        most=1,
    )


def _complete(values: dict[str, Any]) -> None:
    """Sets the round in which the second stage begins. UserError if it is given twice or is after the last round."""
    share, given_round = values["stage_1_share"], values["stage_2_round"]
    if given_round is None:
        first = max(2, round((_STAGE_1_SHARE if share is None else share) * values["rounds"]) + 1)
    elif share is not None:
        raise errors.UserError(
            f"--stage_1_share={share:g} and --stage_2_round={given_round} both say when the second stage begins: "
            "keep one."
        )
    else:
        first = given_round
    if first > values["rounds"]:
        after = f"comes after the last round (--rounds={values['rounds']})"
        if given_round is not None:
            raise errors.UserError(f"--stage_2_round={given_round} {after}: give a smaller one.")
        whose = "" if share is None else f"--stage_1_share={share:g}: "
        raise errors.UserError(
            f"{whose}the second stage of --method={values['method']} {after}: give more --rounds, or a smaller "
            "--stage_1_share."
        )
    values.update(stage_2_round=first, stage_1_share=None)  # given by the round


def _build(setup: method.RunSetup[Settings]) -> method.Training:
    first = fed_avg.build_fed_avg(setup)
    second = reptile.build_reptile(setup, optimizers.STAGE_2_SERVER)
    stages = method.Stage("fed_avg", 1, first), method.Stage("reptile", setup.settings.stage_2_round, second)
    return method.Training(stages, setup.cohorts(), global_weights.GlobalWeights.initial(setup.model))


METHOD = method.Method(
    description="Personalized FedAvg: FedAvg(E), then Reptile(K) with its own server optimizer",
    settings=Settings,
    build=_build,
    complete=_complete,
    first_stage="fed_avg",
)
