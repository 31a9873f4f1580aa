"""Rounds taken over from a finished run that has the same ones, instead of being computed again.

Two runs have the same rounds if they differ in nothing that these read:

    all of them                    runs that differ only in the final evaluation: in other strategies, in numbers of
                                   examples, in learning rates to choose from
    those before the second stage  Personalized FedAvg has those of FedAvg, and its second stage begins with nothing but
                                   the model that they leave: many second stages can start from one FedAvg run

The earlier run's records of these rounds and its models become the new run's, which ends with the numbers that it would
have had without this. What clients keep from round to round is not taken over: with all rounds there, none reads it.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tff_personalization import errors, homes, identity, methods, schedules
from tff_personalization.experiment import config as config_lib
from tff_personalization.experiment import settings
from tff_personalization.records import finished_run, saved_models

# What is read only after the last round.
_OF_THE_END = frozenset({"personalization_examples", "personalization_learning_rates", "target_accuracy"})


@dataclasses.dataclass(frozen=True)
class EarlierRounds:
    """What a run takes over.

    Attributes:
        run: the run that it comes from.
        rounds: how many rounds it is, from the first on.
        records: the rows of these rounds in that run's tables of rounds, as text, by file name.
        models: the trainable weights after some of these rounds, by round; the last one is among them.
    """

    run: finished_run.FinishedRun
    rounds: int
    records: Mapping[str, str]
    models: Mapping[int, tuple[np.ndarray, ...]]

    @property
    def origin(self) -> dict[str, Any]:
        """Where it comes from, for the record of the run that takes it over."""
        commit = self.run.config.get("git_commit")
        return {"run_name": self.run.directory.name, "rounds": self.rounds, "git_commit": commit}


def find(directory: pathlib.Path, experiment: config_lib.Experiment) -> pathlib.Path | None:
    """The run in a directory with the most rounds that an experiment can take over; None if none has any."""
    if not experiment.config.rounds:
        return None
    found: dict[pathlib.Path, int] = {}
    for path in sorted(directory.glob("*/summary.json")):
        try:
            _, found[path.parent] = _check(path.parent, experiment)
        except errors.UserError:
            continue
    return max(found, key=found.__getitem__) if found else None


def may_serve(earlier: config_lib.Experiment, experiment: config_lib.Experiment) -> bool:
    """Whether an experiment can take rounds over from another one, by their settings, once that is finished."""
    rounds, has, differ = _common(*(json.loads(json.dumps(of.as_json())) for of in (earlier, experiment)))
    return 0 < rounds <= has and not differ


def read(experiment: config_lib.Experiment, data_sha256: str) -> EarlierRounds:
    """What the run that `--rounds_from` names has of an experiment's rounds.

    Args:
        experiment: that is to continue from it.
        data_sha256: hash of the experiment's client data.

    Raises:
        UserError: it is no finished run, it differs in what the rounds read, or it has not kept the model.
    """
    path = homes.expand(experiment.config.rounds_from or "")
    try:
        run, rounds = _check(path, experiment)
        if run.config.get("data_sha256") != data_sha256:
            raise errors.UserError(
                f"{path}: its client data has other contents than --client_data={experiment.config.client_data}: "
                "choose a run on the same data."
            )
        _, text = _until(path / "metrics.csv", rounds)
        records = {"metrics.csv": text}
        evaluations, text = _until(path / "evaluations.csv", rounds)
        if len(evaluations):
            records["evaluations.csv"] = text
        models = {number: run.global_weights(number).flat for number in run.kept_rounds if number <= rounds}
        return EarlierRounds(run, rounds, records, models)
    except errors.UserError as error:
        raise errors.UserError(f"--rounds_from={error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.UserError(
            f"--rounds_from={path}: a record is damaged ({type(error).__name__}: {error}): make that run again, or "
            "remove this flag."
        ) from error


def _until(path: pathlib.Path, rounds: int) -> tuple[pd.DataFrame, str]:
    """The rows of a table of rounds up to a round, without those of the final evaluation, and their text as it is."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    wanted = table["round"].astype(int) <= rounds
    if "split" in table:
        wanted &= table["split"] != "test"
    lines = path.read_bytes().decode("utf-8-sig").splitlines(keepends=True)
    return table[wanted], "".join([lines[0], *itertools.compress(lines[1:], wanted)])


def _check(path: pathlib.Path, experiment: config_lib.Experiment) -> tuple[finished_run.FinishedRun, int]:
    """A run, and how many of its rounds an experiment can take over; UserError that begins with its path if none."""
    run = finished_run.FinishedRun.open(path)
    try:
        rounds, has, differ = _common(dict(run.config["flags"]), json.loads(json.dumps(experiment.as_json())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.UserError(
            f"{path}: not a run directory of this version of the program ({type(error).__name__})."
        ) from error
    if differ:
        raise errors.UserError(
            f"{path}: its rounds are others ({', '.join(differ)}): give the same settings, or name another run."
        )
    if has < rounds:
        raise errors.UserError(
            f"{path}: has {has} of the {rounds} rounds that are the same: name a run that has all of them."
        )
    run.round_number(rounds)
    best = _best_on_validation(run, experiment, rounds)
    if best is not None:
        run.round_number(best.round_number)
    return run, rounds


def _common(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[int, int, list[str]]:
    """The rounds that two runs share by their settings: how many ours needs, how many theirs has, what differs."""
    differ = _differences(theirs, ours, frozenset())
    stages = [methods.get(of["method"]).first_stage for of in (theirs, ours)]
    if not differ or not stages[1] or stages[1] not in (theirs["method"], stages[0]):
        return ours["rounds"], theirs["rounds"], differ
    has = theirs["stage_2_round"] - 1 if stages[0] else theirs["rounds"]
    both, first = (methods.get(name).settings.parts().keys() for name in (ours["method"], stages[1]))
    return ours["stage_2_round"] - 1, has, _differences(theirs, ours, frozenset({"method", *(both - first)}))


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], besides: frozenset[str]) -> list[str]:
    """What two runs' rounds read and differs, in words; `besides` some settings and roles of optimizers."""
    reads = settings.reads()
    main = reads["strategies"][ours["strategies"][0]].union(*(reads["method"][of["method"]] for of in (theirs, ours)))
    left_out = _OF_THE_END | besides | (frozenset().union(*reads["strategies"].values()) - main)
    before, now = (_read_by_rounds(of, left_out) for of in (theirs, ours))
    return [
        f"{name}: {before.get(name)!r} there, {now.get(name)!r} here"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _read_by_rounds(flags: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    """The settings of a run that its rounds depend on, as far as they are not left out."""
    defaults = settings.defaults()
    optimizers = {role: spec for role, spec in flags["optimizers"].items() if role not in left_out}
    if all(spec["schedule"] == dataclasses.asdict(schedules.Schedule()) for spec in optimizers.values()):
        left_out |= {"rounds"}  # only a schedule looks at how many there are
    found = {
        **defaults,
        **identity.of(flags, defaults),
        "strategies": flags["strategies"][:1],  # between rounds, only the main one is judged
        "optimizers": optimizers,
    }
    return {name: value for name, value in found.items() if name not in left_out}


def _best_on_validation(
    run: finished_run.FinishedRun, experiment: config_lib.Experiment, rounds: int
) -> saved_models.Best | None:
    """The evaluated round of a run, of its first ones, that was best on validation clients, if it has any."""
    config = experiment.config
    if not config.validation_clients or not config.rounds_per_evaluation:
        return None
    table = run.evaluations
    return saved_models.best_on_validation(
        table[table["round"] <= rounds], config.strategies[0], config.personalization_epochs
    )
