"""Takes over rounds from a finished run that computed the same ones, instead of computing them again.

Two runs share rounds if they agree in every setting that these rounds read:

    the first rounds               a run of more rounds, unless a learning rate depends on the number of rounds
    all rounds                     runs that differ only in the final evaluation: in strategies, numbers of examples,
                                   learning rates to choose from, or the evaluation's seed
    those before the second stage  Personalized FedAvg's are FedAvg's. Its second stage starts from the model only, so
                                   many second stages can start from one FedAvg run

The new run copies the earlier run's records and models of these rounds. Its results are the same as without the copy.
If the earlier run ended after these rounds, the new run also takes over the server's state and the clients' states.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tff_personalization import errors, homes, identity, methods
from tff_personalization.experiment import config as config_lib
from tff_personalization.experiment import settings
from tff_personalization.records import (
    checkpoints,
    client_states,
    finished_run,
    run_directory,
    run_records,
    saved_models,
)

# Settings that are read only after the last round.
_OF_THE_END = frozenset(
    {
        "personalization_examples",
        "personalization_learning_rates",
        "target_accuracy",
        "evaluation_seed",
        "participants",
    }
)
NONE = "none"
"""The value of --rounds_from with which a run computes all of its rounds."""


@dataclasses.dataclass(frozen=True)
class EarlierRounds:
    """The rounds that a run takes over.

    Attributes:
        run: the earlier run.
        rounds: how many rounds are taken over, from the first.
        records: the rows of these rounds in the earlier run's tables, as text, by file name.
        models: the trainable weights after some of these rounds, by round. The last round is one of them.
        with_state: whether the run's checkpoint has the server's state after these rounds, and its directory the
            clients' states. A later round may need both.
    """

    run: finished_run.FinishedRun
    rounds: int
    records: Mapping[str, str]
    models: Mapping[int, tuple[np.ndarray, ...]]
    with_state: bool

    @property
    def origin(self) -> dict[str, Any]:
        """Where the rounds come from, for the record of the new run."""
        commit, code = self.run.config.get("git_commit"), self.run.config.get(run_directory.CODE)
        where = {"run_name": self.run.directory.name, "rounds": self.rounds, "git_commit": commit}
        one_code = {run_directory.CODE: code} if code and was_made_by(self.run, code) else {}
        return {**where, **one_code, "with_state": self.with_state}

    @property
    def checkpoints(self) -> pathlib.Path:
        """Where the run's checkpoints are."""
        return self.run.directory / "checkpoints"

    @property
    def client_states(self) -> pathlib.Path:
        """Where the states of the run's clients are."""
        return self.run.directory / "client_states"


def find(directory: pathlib.Path, experiment: config_lib.Experiment) -> pathlib.Path | None:
    """The run in a directory with the most rounds that an experiment can take over; None if none has any.

    This code must have computed all of its rounds. A run with exactly the experiment's settings is skipped, because it
    must not be rebuilt from itself.

    Args:
        directory: holds run directories.
        experiment: the experiment that will be run.
    """
    if not experiment.config.rounds:
        return None
    found: dict[pathlib.Path, int] = {}
    for path in sorted(directory.glob("*/summary.json")):
        try:
            run, rounds = _check(path.parent, experiment)
        except errors.UserError:
            continue
        if was_made_by(run, run_directory.code_sha256()) and not _is_of(run, experiment):
            found[path.parent] = rounds
    return max(found, key=found.__getitem__) if found else None


def was_made_by(run: run_records.Run, code: str) -> bool:
    """Whether the code with this SHA-256 computed all of a run's rounds, those that it took over included."""
    starts = [*(run.config.get("starts") or [run.config]), *filter(None, [run.config.get("rounds_taken_over")])]
    return all(start.get(run_directory.CODE) == code for start in starts)


def _is_of(run: run_records.Run, experiment: config_lib.Experiment) -> bool:
    defaults = settings.defaults()
    return identity.of(run.config["flags"], defaults) == identity.of(experiment.as_json(), defaults)


def set_aside(path: pathlib.Path, experiment: config_lib.Experiment) -> pathlib.Path | None:
    """Renames a finished run, so that an experiment that takes over its rounds can use the directory.

    Returns the new path; None if the experiment cannot take over any of its rounds, or other code made it.
    """
    try:
        run, _ = _check(path, experiment)
    except errors.UserError:
        return None
    if not was_made_by(run, run_directory.code_sha256()):
        return None
    places = (path.with_name(f"{path.name}-earlier{number or ''}") for number in itertools.count())
    return path.rename(next(place for place in places if not place.exists()))


def may_serve(earlier: config_lib.Experiment, experiment: config_lib.Experiment) -> bool:
    """Whether an experiment can take over rounds from another one when that is finished, judging by their settings."""
    rounds, has, differ, first = _common(earlier.as_json(), experiment.as_json())
    every = earlier.config.rounds_per_model
    keeps_model = rounds >= has or (every and rounds % every == 0)
    return bool(min(rounds, has) > 0 and (rounds <= has or first) and keeps_model and not differ)


def read(experiment: config_lib.Experiment, data_sha256: str, path: pathlib.Path | None = None) -> EarlierRounds:
    """The rounds of an experiment that an earlier run has.

    Args:
        experiment: the experiment that will continue from it.
        data_sha256: hash of the experiment's client data.
        path: the run; None for the value of `--rounds_from`.

    Raises:
        UserError: the run is not finished, differs in a setting that the rounds read, or did not keep the model.
    """
    path = path or homes.expand(experiment.config.rounds_from or "")
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
        with_state = _has_state(run, experiment, rounds)
        if with_state:
            checkpoints.check(path / "checkpoints", rounds)
            digest = checkpoints.client_states(path / "checkpoints", rounds)
            client_states.ClientStates(path / "client_states").check(rounds, digest)
        return EarlierRounds(run, rounds, records, models, with_state)
    except errors.UserError as error:
        raise errors.UserError(f"--rounds_from={error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise errors.UserError(
            f"--rounds_from={path}: a record is damaged ({type(error).__name__}: {error}): repeat that run, or "
            "remove this flag."
        ) from error


def _until(path: pathlib.Path, rounds: int) -> tuple[pd.DataFrame, str]:
    """The rows of a table up to a round, without those of the final evaluation, and their unchanged text."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    wanted = table["round"].astype(int) <= rounds
    if "split" in table:
        wanted &= table["split"] != "test"
    lines = path.read_bytes().decode("utf-8-sig").splitlines(keepends=True)
    return table[wanted], "".join([lines[0], *itertools.compress(lines[1:], wanted)])


def _check(path: pathlib.Path, experiment: config_lib.Experiment) -> tuple[finished_run.FinishedRun, int]:
    """A run, and how many of its rounds an experiment can take over. If none, a UserError that begins with its path."""
    run = finished_run.FinishedRun.open(path)
    try:
        rounds, has, differ, first = _common(run.config["flags"], experiment.as_json())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.UserError(
            f"{path}: this version of the program cannot read this run ({type(error).__name__}): give another run."
        ) from error
    if differ:
        raise errors.UserError(
            f"{path}: its rounds were made differently ({', '.join(differ)}): give the same settings, or another run."
        )
    if has < rounds:
        if not first or not has:
            raise errors.UserError(
                f"{path}: has {has} of the {rounds} rounds that are the same: give a run that has all of them."
            )
        if not _has_state(run, experiment, has):
            raise errors.UserError(
                f"{path}: has {has} of the {rounds} rounds, but no checkpoint with the server's state after them: name "
                "the run that has computed them."
            )
        rounds = has
    config = experiment.config
    evaluates_states = config.participants != 0 and config.personalization_epochs and rounds == config.rounds
    if evaluates_states and (path / "client_states").is_dir() and not _has_state(run, experiment, rounds):
        raise errors.UserError(
            f"{path}: it has no states of clients after round {rounds}, and these are evaluated: give a run that ended "
            "after this round, or --participants=0."
        )
    every = config.rounds_per_model
    for wanted in (rounds, *(range(every, rounds, every) if every else ())):
        run.round_number(wanted)
    best = _best_on_validation(run, experiment, rounds)
    if best is not None:
        run.round_number(best.round_number)
    return run, rounds


def _has_state(run: finished_run.FinishedRun, experiment: config_lib.Experiment, rounds: int) -> bool:
    """Whether a run's last checkpoint is of this round, with the state that computing the round would give."""
    flags, origin = run.config["flags"], run.config.get("rounds_taken_over")
    if rounds != flags["rounds"] or flags["method"] != experiment.config.method:
        return False
    # A run that took over all of its rounds without the state has only the model in its last checkpoint.
    whole = origin is None or origin["rounds"] < rounds or origin.get("with_state", False)
    return whole and (run.directory / "checkpoints" / f"round_{rounds}.json").exists()


def _common(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[int, int, list[str], bool]:
    """The rounds that two runs share by their settings.

    Returns:
        How many rounds ours needs, how many theirs has, what differs, and whether fewer than ours needs also help.
    """
    differ = _differences(theirs, ours, frozenset())
    stages = [methods.get(of["method"]).first_stage for of in (theirs, ours)]
    if not differ or not stages[1] or stages[1] not in (theirs["method"], stages[0]):
        return ours["rounds"], theirs["rounds"], differ, True
    has = theirs["stage_2_round"] - 1 if stages[0] else theirs["rounds"]
    both, first = (methods.get(name).settings.parts().keys() for name in (ours["method"], stages[1]))
    return ours["stage_2_round"] - 1, has, _differences(theirs, ours, frozenset({"method", *(both - first)})), False


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], besides: frozenset[str]) -> list[str]:
    """How two runs differ in what their rounds read, in words, apart from the settings and roles in `besides`."""
    strategies = {name: group.parts().keys() for name, group in settings.choices()["strategies"].items()}
    of_methods = (methods.get(of["method"]).settings.parts().keys() for of in (theirs, ours))
    main = frozenset().union(strategies[ours["strategies"][0]], *of_methods)
    left_out = _OF_THE_END | besides | (frozenset().union(*strategies.values()) - main)
    reader = settings.reader_of_rounds(ours) or settings.reader_of_rounds(theirs)
    left_out |= frozenset() if reader else {"rounds"}
    before, now = (_read_by_rounds(of, left_out) for of in (theirs, ours))
    return [
        f"{name}: {before.get(name)!r} there, {now.get(name)!r} here"
        + (f", which {reader} depends on" if name == "rounds" else "")
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _read_by_rounds(flags: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    """The settings that a run's rounds depend on, except those in `left_out`."""
    defaults = settings.defaults()
    optimizers = {role: spec for role, spec in flags["optimizers"].items() if role not in left_out}
    found = {
        **defaults,
        **identity.of(flags, defaults),
        "strategies": flags["strategies"][:1],  # between rounds, only the main one is evaluated
        "optimizers": optimizers,
    }
    by_flag = identity.with_flags_of_optimizers(found)
    return {name: value for name, value in by_flag.items() if name not in left_out}


def _best_on_validation(
    run: finished_run.FinishedRun, experiment: config_lib.Experiment, rounds: int
) -> saved_models.Best | None:
    """Among the first `rounds` rounds of a run, the one that was best on validation clients, if any were evaluated."""
    config = experiment.config
    if not config.validation_clients or not config.rounds_per_evaluation:
        return None
    table = run.evaluations
    return saved_models.best_on_validation(
        table[table["round"] <= rounds], config.strategies[0], config.personalization_epochs, run.metric
    )
