"""The rounds of a run: train, evaluate, record, checkpoint, until all of them are done.

In each round the cohort trains. Every --rounds_per_evaluation rounds some clients evaluate the model. Metrics,
evaluation and model are recorded. Every --rounds_per_checkpoint rounds a checkpoint is saved, to resume from.
"""

import collections
import dataclasses
import gc
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_federated as tff
from absl import logging

from analysis import names
from tff_personalization import cohorts, metrics
from tff_personalization.algorithms import method, stateful_clients
from tff_personalization.execution import interruption, runtime
from tff_personalization.experiment import config as config_lib
from tff_personalization.models import functional
from tff_personalization.programs import checks, client_evaluation, progress
from tff_personalization.records import run_writer, saved_models
from tff_personalization.tasks import federated_data


@dataclasses.dataclass(frozen=True)
class Program:
    """Everything that is the same in all rounds.

    Attributes:
        model: the network, untrained.
        sample: the clients that evaluate between rounds: validation clients, or else test clients.
        split: their name in evaluations.csv.
        interrupt: postpones signals while files are written.
        line: shows the run's progress.
    """

    experiment: config_lib.Experiment
    data: federated_data.FederatedData
    model: functional.SeededModel
    training: method.Training
    evaluator: client_evaluation.PersonalizationEvaluator
    sample: tuple[str, ...]
    split: str
    writer: run_writer.RunWriter
    interrupt: interruption.Interruption
    line: progress.Line


# The numbers of a checkpoint, in the order in which it has them.
_NUMBERS: Mapping[str, Any] = dict(
    round_number=int, train_seconds=float, evaluation_seconds=float, examples=int, expected_seconds=float
)


@dataclasses.dataclass(frozen=True)
class State:
    """Everything that changes from round to round, after a round.

    Attributes:
        learning: the state of the learning process; None before the first round.
        round_number: the last whole round; 0 before the first.
        train_seconds: the time of training. This and the next three count only rounds that this run computed itself.
        evaluation_seconds: the time of evaluations.
        examples: visits of examples in training.
        expected_seconds: the time of all rounds, estimated after a tenth of them; 0 before.
        best: the evaluated round that is best on validation clients so far.
        accuracies: initial and personalized accuracy of the last two evaluations, newest first, if there are any.
    """

    learning: Any = None
    round_number: int = 0
    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    examples: int = 0
    expected_seconds: float = 0.0
    best: saved_models.Best | None = None
    accuracies: tuple[tuple[float, float], ...] = ()

    def as_program_state(self) -> collections.OrderedDict:
        """The contents of a checkpoint. The rest is read from the records."""
        return collections.OrderedDict(learning=self.learning, **{name: getattr(self, name) for name in _NUMBERS})

    @classmethod
    def from_program_state(cls, loaded: Mapping[str, Any]) -> "State":
        """The state of a checkpoint, without what is read from the records."""
        return cls(loaded["learning"], **{name: kind(loaded[name]) for name, kind in _NUMBERS.items()})


@dataclasses.dataclass(frozen=True)
class Trained:
    """The result of a round of training: the clients that reported, and the output of the learning process."""

    round_number: int
    stage: method.Stage
    cohort: cohorts.Cohort
    output: Any
    seconds: float

    @property
    def weights(self) -> tff.learning.models.ModelWeights:
        """The global weights after the round."""
        return self.stage.process.get_model_weights(self.output.state)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """The result of an evaluation between rounds, and its seconds."""

    result: client_evaluation.EvaluationResult
    seconds: float


def run(program: Program, state: State) -> State:
    """Runs the remaining rounds, and returns the state after the last one."""
    config = program.experiment.config
    program.line.step(names.method(config.method), config.rounds, state.round_number, "round")
    gc.collect()
    gc.freeze()  # Garbage collection between rounds skips the objects of TensorFlow and the graphs.
    try:
        while state.round_number < config.rounds:
            trained = train(program, state)
            evaluated = evaluate(program, trained)
            with program.interrupt.postponed():
                state = record(program, state, trained, evaluated)
                checkpoint(program, state)
            _show(program, state, trained)
            del trained, evaluated  # frees a cohort's data and its clients' states before the next cohort is made
    except BaseException:
        # After Ctrl-C, SIGTERM, SIGHUP or an error, the last whole round is kept.
        if state.learning is not None:
            with program.interrupt.postponed():
                save(program, state)
        raise
    return state


def train(program: Program, state: State) -> Trained:
    """Trains for one round."""
    round_number, started = state.round_number + 1, time.monotonic()
    stage = program.training.stage_of(round_number)
    cohort = program.training.cohort(round_number)
    learning = _state_for(program, state, stage)
    if isinstance(stage.process, stateful_clients.StatefulProcess):
        kept = program.writer.client_states.read(cohort.members, stage.process.client_state, stage.first_round)
        output = stage.process.next(learning, cohort.values, kept)
    else:
        output = stage.process.next(learning, cohort.values)
    trained = Trained(round_number, stage, cohort, output, time.monotonic() - started)
    name, metric = program.experiment.config.method, program.model.scoring.metric
    checks.check_round(name, output, trained.weights.trainable, round_number, metric)
    return trained


def _state_for(program: Program, state: State, stage: method.Stage) -> Any:
    """The state at the start of a round. A new stage takes over only the model of the previous stage."""
    if state.learning is not None and state.round_number + 1 != stage.first_round:
        return state.learning
    learning = stage.process.initialize()
    if state.learning is None:
        return learning
    before = program.training.stage_of(state.round_number).process
    return stage.process.set_model_weights(learning, before.get_model_weights(state.learning))


def evaluate(program: Program, trained: Trained) -> Evaluated | None:
    """Evaluates the model after a round with the main strategy; None if no evaluation is due."""
    config = program.experiment.config
    if not config.rounds_per_evaluation or trained.round_number % config.rounds_per_evaluation:
        return None
    started = time.monotonic()
    main = config.strategies[:1]  # the others are evaluated at the end
    weights = program.training.initial_weights.like(trained.weights.trainable)
    result = program.evaluator.evaluate(weights, program.sample, trained.round_number, strategies=main)
    return Evaluated(result, time.monotonic() - started)


def record(program: Program, state: State, trained: Trained, evaluated: Evaluated | None) -> State:
    """Records a round, and returns the state after it. An error here leaves the state from before the round."""
    config, writer, round_number = program.experiment.config, program.writer, trained.round_number
    writer.check_place()
    measured = trained.output.metrics["client_work"]
    seconds = state.train_seconds + trained.seconds, state.evaluation_seconds + (evaluated.seconds if evaluated else 0)
    expected, accuracies, best = state.expected_seconds, None, state.best
    if round_number == max(1, config.rounds // 10) and "rounds_taken_over" not in (writer.directory.record() or {}):
        expected = sum(seconds) / round_number * config.rounds
    if evaluated is not None:
        before, after = (evaluated.result.distributions[key].mean for key in _main(config))
        accuracies = before, after
        best = _better(best, evaluated.result.table(round_number, program.split), config, evaluated.result.metric)
    if isinstance(trained.output, stateful_clients.StatefulOutput):
        # This comes first: an error here does not change the states of earlier rounds.
        writer.client_states.write(trained.cohort.members, trained.output.client_states, round_number)
    writer.release(_metrics(trained, accuracies), round_number, _histograms(program, trained, evaluated))
    if evaluated is not None:
        writer.append_evaluation(evaluated.result.table(round_number, program.split), round_number, program.split)
    every = config.rounds_per_model
    if (every and round_number % every == 0) or (best is not None and best.round_number == round_number):
        writer.models.save(trained.weights.trainable, round_number)
    return State(
        trained.output.state,
        round_number,
        *seconds,
        state.examples + int(measured["examples"]),
        expected,
        best,
        (accuracies, *state.accuracies[:1]) if accuracies else state.accuracies,
    )


def checkpoint(program: Program, state: State) -> None:
    """Saves a checkpoint if one is due, and deletes client states that no checkpoint needs."""
    config = program.experiment.config
    if state.round_number % config.rounds_per_checkpoint == 0 or state.round_number == config.rounds:
        save(program, state)
        runtime.return_free_memory()
    if isinstance(program.training.stage_of(state.round_number).process, stateful_clients.StatefulProcess):
        program.writer.client_states.prune(program.writer.checkpoints.rounds())


def save(program: Program, state: State) -> None:
    """Saves a checkpoint."""
    program.writer.save_checkpoint(state.as_program_state(), state.round_number)


def _metrics(trained: Trained, accuracies: tuple[float, float] | None) -> dict[str, Any]:
    """The row of metrics.csv of a round."""
    measured, cohort = trained.output.metrics["client_work"], trained.cohort
    if measured["non_finite_clients"]:
        logging.warning(
            "Round %d: %d of %d clients sent an update that is not finite and is left out.%s",
            trained.round_number,
            measured["non_finite_clients"],
            len(cohort.members),
            "" if measured["clients"] else " No client is left: the model stays as it was.",
        )
    initial, personalized = accuracies or ("", "")
    names = ("clients", "examples", "train_loss", "train_accuracy", "non_finite_clients")
    return {
        "stage": trained.stage.name,
        **{name: measured[name] for name in names},
        "dropped_clients": cohort.dropped,
        "stragglers": cohort.stragglers,
        "initial_accuracy": initial,
        "personalized_accuracy": personalized,
        "extra_examples": measured.get("extra_examples", ""),  # a plugin's own process may not count them
    }


def _histograms(program: Program, trained: Trained, evaluated: Evaluated | None) -> dict[str, np.ndarray]:
    """Distributions over clients: the cohort's numbers of train examples and, after an evaluation, accuracies."""
    found, config = {}, program.experiment.config
    if config.evaluation_release == "records":
        train, trains = program.data.train, frozenset(program.data.split.train)
        counts = [train.num_examples(member) for member in trained.cohort.members if member in trains]
        found["distribution/train_examples_of_cohort"] = np.array(counts)
    if evaluated is not None:
        for name, key in zip(("initial", "personalized"), _main(config), strict=True):
            found[f"distribution/{name}_accuracy"] = evaluated.result.accuracies(*key)
    return {name: values for name, values in found.items() if values.size}


def _main(config: Any) -> tuple[tuple[str, int], tuple[str, int]]:
    """The main strategy, with its epochs before and after personalization."""
    return (config.strategies[0], 0), (config.strategies[0], config.personalization_epochs)


def _better(
    best: saved_models.Best | None, table: Any, config: Any, metric: metrics.Metric
) -> saved_models.Best | None:
    """The best round, including one more evaluation; the first one of several."""
    found = saved_models.best_on_validation(table, *_main(config)[1], metric)
    if best is None or (found is not None and metric.gain(best.accuracy, found.accuracy) > 0):
        return found
    return best


def _show(program: Program, state: State, trained: Trained) -> None:
    """Shows the result of a round on the progress line and in the log."""
    note = f"{state.examples / state.train_seconds:,.0f} examples/s"
    if state.accuracies:
        newest, *before = state.accuracies
        note += f", {progress.accuracies(*newest, before[0] if before else None)}"
    program.line.update(note=note)
    measured = trained.output.metrics["client_work"]
    logging.info(
        "Round %d: train loss %.4f, train %s %.4f, %d examples, %.1f s",
        state.round_number,
        measured["train_loss"],
        program.model.scoring.metric.name,
        measured["train_accuracy"],
        measured["examples"],
        trained.seconds,
    )
