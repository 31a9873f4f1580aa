"""The global model of a run, read from its directory, and what is said of it wherever it goes."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from tff_personalization import errors, methods, seeds
from tff_personalization.algorithms import ifca
from tff_personalization.experiment import config as config_lib
from tff_personalization.models import characters, functional
from tff_personalization.records import run_directory, saved_models
from tff_personalization.tasks import archives, registry

LAST, BEST = "last", "best"
IMAGES = "uint8, ink 255 on background 0, 28×28, rows from above; divided by 255 inside of the model"
TEXT = (
    "character ids, uint8: 0 padding, 1 to 86 the characters of `classes`, 87 any other, 88 the beginning and 89 the "
    "end of what is said; the first is the beginning; a row of logits says what follows the id at its place"
)


@dataclasses.dataclass(frozen=True)
class GlobalModel:
    """A run's global model after a round.

    Attributes:
        run: the run directory.
        experiment: the run's settings.
        record: the run's config.json.
        model: the network.
        weights: its weights, in the model's order.
        round_number: the round after which they are what they are.
    """

    run: pathlib.Path
    experiment: config_lib.Experiment
    record: dict[str, Any]
    model: functional.SeededModel
    weights: tuple[np.ndarray, ...]
    round_number: int

    @property
    def is_text(self) -> bool:
        """Whether it predicts the next character and not the class of an image."""
        return self.experiment.config.task == "shakespeare"

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return registry.TASKS[self.experiment.config.task].num_classes

    def metadata(self) -> dict[str, Any]:
        """What someone who meets the model without the run has to know of it, as plain values."""
        record, config = self.record, self.experiment.config
        names = ("method", "task", "seed", "git_commit", "source", "synthetic", "data_sha256", "clients")
        return {
            "task": config.task,
            "model": config.model,
            "classes": list(characters.CLASSES if self.is_text else archives.CLASSES[: self.num_classes]),
            "input": TEXT if self.is_text else IMAGES,
            "output": "logits, float32, one for each of `classes`; softmax makes probabilities of them",
            "run": {
                "name": record["run_name"],
                **{name: record[name] for name in names},
                "rounds": config.rounds,
                "round": self.round_number,
            },
            "exported_with": {"git_commit": run_directory.git_commit(), "tensorflow": tf.__version__},
        }


def read(run: pathlib.Path, which: str = LAST) -> GlobalModel:
    """The global model of a finished run.

    Args:
        run: the run directory.
        which: the round: "last", "best" (on validation clients), or a number.

    Raises:
        UserError: it is no finished run, has not kept that model, or has no single one.
    """
    if not run.is_dir():
        raise errors.UserError(f"{run}: no such directory; give a run directory.")
    experiment = config_lib.from_run(run)
    config = experiment.config
    summary = _read_json(run / "summary.json", f"{run}: unfinished run (no summary.json); repeat its command first.")
    record = _read_json(run / "config.json", f"{run}: not a run directory (no config.json).")
    if methods.get(config.method).provides == ifca.SEVERAL_MODELS:
        raise errors.UserError(
            f"{run}: --method={config.method} trains several models, none of which is the global model: give a run of "
            "another method."
        )
    task = registry.TASKS[config.task]
    model = task.models[config.model](task.num_classes, seeds.generator(config.seed, "init"))
    round_number = _round(run, which, summary)
    kept = saved_models.SavedModels(run / "models")
    if round_number not in kept.rounds():
        rounds = ", ".join(map(str, kept.rounds())) or "none"
        raise errors.UserError(
            f"--round={which}: {run} has not kept the model after round {round_number} (kept: {rounds}): choose one of "
            "these, or make the run with --rounds_per_model."
        )
    expected = model.initial_weights[0]
    weights = kept.load(round_number)[: len(expected)]  # a method may have more than the model's own
    if [w.shape for w in weights] != [w.shape for w in expected]:
        raise errors.UserError(
            f"{kept.file(round_number)}: not the weights of --model={config.model}: restore the file, or repeat the "
            "run."
        )
    return GlobalModel(run, experiment, record, model, weights, round_number)


def _round(run: pathlib.Path, which: str, summary: dict[str, Any]) -> int:
    if which == LAST:
        return summary["rounds"]
    if which == BEST:
        if not summary.get("validation_round"):
            raise errors.UserError(
                f"--round=best: {run} has no evaluation of validation clients: give --round=last, or make the run with "
                "--validation_clients."
            )
        return summary["validation_round"]["round"]
    try:
        return int(which)
    except ValueError:
        raise errors.UserError(f"--round={which}: last, best, or the number of a round is expected.") from None


def _read_json(path: pathlib.Path, if_missing: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise errors.UserError(if_missing) from None
    except (OSError, ValueError, TypeError) as error:
        raise errors.UserError(f"{path} is damaged ({type(error).__name__}): restore it, or repeat the run.") from error
