"""The program: rounds, evaluations, checkpoints and records of one run, from an experiment to its summary."""

import collections
import dataclasses
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
import tensorflow_federated as tff
from absl import logging

from tff_personalization import methods, seeds
from tff_personalization.algorithms import stateful_clients
from tff_personalization.execution import interruption, remote_workers, runtime
from tff_personalization.experiment import config as config_lib
from tff_personalization.experiment import setup as setup_lib
from tff_personalization.programs import client_evaluation, final_evaluation, progress, summary, writers
from tff_personalization.records import client_states, coroutines, earlier_run, files, run_directory, saved_models
from tff_personalization.tasks import federated_data


@dataclasses.dataclass
class Progress:
    """Where a run stands: what a checkpoint holds, besides the state of the learning process."""

    round_number: int = 0
    train_seconds: float = 0.0  # these three without what was taken over
    evaluation_seconds: float = 0.0
    examples: int = 0
    expected_seconds: float = 0.0  # for all rounds, as it looked after a tenth of them


def run(experiment: config_lib.Experiment, interrupt: interruption.Interruption) -> run_directory.RunDirectory:
    """Runs an experiment, or goes on with it where an earlier start was stopped, until its summary is written.

    Args:
        experiment: what to run.
        interrupt: postpones signals while files are written.

    Returns:
        The finished run's directory.

    Raises:
        UserError: the data cannot be read, or the run directory belongs to another experiment.
        Interrupted: by a signal; what was computed is saved.
    """
    coroutines.start()
    directory = run_directory.RunDirectory(experiment)
    if directory.finished:
        return directory
    config = experiment.config
    data = federated_data.load(config, look=True)
    earlier = None
    if config.rounds_from and not directory.has_checkpoints:
        earlier = earlier_run.read(experiment, data.sha256)
    directory.create()  # not before: what cannot be read leaves nothing behind
    cores = config.cores or runtime.available_cores()
    threads = config.threads_per_client or (cores if methods.get(config.method).pooled else 1)
    origin = {} if earlier is None else {"rounds_taken_over": earlier.origin}
    directory.write_config(
        data, {"cores": cores, "threads_per_client": threads, "clients_per_call": config.clients_per_call, **origin}
    )
    where = f"On {', '.join(config.workers)}" if config.workers else f"{cores} at once, threads for each: {threads}"
    _say(directory, data, where)
    if "rounds_per_evaluation" in experiment.given and config.rounds_per_evaluation > config.rounds > 0:
        logging.warning(
            "Nothing is evaluated between rounds: --rounds_per_evaluation=%d is more than --rounds=%d.",
            config.rounds_per_evaluation,
            config.rounds,
        )
    worker_log = None if logging.level_debug() else directory.worker_log
    computing = (
        remote_workers.execution_context(config.workers, config.clients_per_call)
        if config.workers
        else runtime.execution_context(cores, worker_log, threads, config.clients_per_call)
    )
    # Not before: what is refused is refused in one line.
    with progress.Line("starting TFF's worker") as line, computing:
        line.step(f"building {config.method}")
        _Program(experiment, interrupt, directory, data, earlier, line).run()
    return directory


def _say(
    directory: run_directory.RunDirectory,
    data: federated_data.FederatedData,
    where: str,
) -> None:
    """Says on standard error what was found and what is about to happen."""
    for note in data.notes:
        print(note, file=sys.stderr)
    for finding in data.findings:
        logging.warning("The data looks wrong: %s", finding)
    counts = ", ".join(f"{count:,} {split}" for split, count in data.split.counts().items() if count)
    print(
        f"{data.source}: {counts} clients. {where}. Run directory: {directory.path}",
        file=sys.stderr,
    )


class _Program:
    def __init__(
        self,
        experiment: config_lib.Experiment,
        interrupt: interruption.Interruption,
        directory: run_directory.RunDirectory,
        data: federated_data.FederatedData,
        taken_over: earlier_run.EarlierRounds | None,
        line: progress.Line,
    ):
        config = experiment.config
        self._experiment = experiment
        self._config = config
        self._interrupt = interrupt
        self._directory = directory
        self._data = data
        self._taken_over = taken_over
        self._line = line
        self._trained = frozenset(data.split.train)
        made = setup_lib.setup(experiment, data)
        self._model = made.model
        self._training = methods.get(config.method).build(made)
        self._evaluator = client_evaluation.PersonalizationEvaluator(
            experiment, self._model, data, self._training.initial_weights
        )
        # Between rounds, validation clients are judged, or else a sample of test clients that stays the same.
        self._split = "validation" if data.split.validation else "test_sample"
        candidates = data.split.validation or data.split.test
        order = seeds.generator(config.seed, "evaluation_sample").permutation(len(candidates))
        self._sample = [candidates[i] for i in order[: config.evaluation_clients]]
        self._progress = Progress()
        self._evaluated: tuple[float, float] | None = None
        self._shown = ""
        self._state: Any = None
        self._client_states = client_states.ClientStates(directory.path / "client_states")

    def run(self) -> None:
        self._restore()
        rounds = self._config.rounds
        self._line.step(self._config.method, rounds, self._progress.round_number, "round")
        try:
            while self._progress.round_number < rounds:
                self._round(self._progress.round_number + 1)
        except BaseException:
            # Ctrl-C, SIGTERM or a fault: the last whole round is kept.
            if self._state is not None and self._progress.round_number > 0:
                with self._interrupt.postponed():
                    self._save()
            raise
        self._finish()

    def _restore(self) -> None:
        newest = self._directory.checkpoints.load_newest(
            lambda round_number: self._program_state(self._training.stage_of(round_number).process.initialize())
        )
        round_number, loaded = newest or (0, None)
        self._client_states.forget_after(round_number)
        self._directory.keep_records_until(round_number)
        self._directory.record_start(round_number)
        if loaded is None:
            if self._taken_over is not None:
                self._take_over(self._taken_over)
            return
        self._state = loaded["learning"]
        self._progress = Progress(
            round_number,
            float(loaded["train_seconds"]),
            float(loaded["evaluation_seconds"]),
            int(loaded["examples"]),
            float(loaded["expected_seconds"]),
        )
        logging.info("Going on after round %d of %s", round_number, self._directory.path)

    def _take_over(self, earlier: earlier_run.EarlierRounds) -> None:
        """Makes the rounds of another run the first ones of this."""
        process = self._training.stage_of(earlier.rounds).process
        weights = tff.learning.models.ModelWeights(earlier.models[earlier.rounds], ())
        with self._interrupt.postponed():
            self._directory.take_over(earlier)
            self._state = process.set_model_weights(process.initialize(), weights)
            self._progress = Progress(earlier.rounds)  # times are of what this run does itself
            self._save()

    def _program_state(self, learning: Any) -> collections.OrderedDict:
        return collections.OrderedDict(learning=learning, **dataclasses.asdict(self._progress))

    def _save(self) -> None:
        self._directory.checkpoints.save(self._program_state(self._state), self._progress.round_number)

    def _state_for(self, stage: methods.Stage, round_number: int) -> Any:
        """The state that a round begins with: a stage begins afresh, except for the model that the one before left."""
        if self._state is not None and round_number != stage.first_round:
            return self._state
        state = stage.process.initialize()
        if self._state is None:
            return state
        before = self._training.stage_of(round_number - 1).process
        return stage.process.set_model_weights(state, before.get_model_weights(self._state))

    def _next(self, stage: methods.Stage, round_number: int, cohort: methods.Cohort) -> Any:
        state = self._state_for(stage, round_number)
        if not isinstance(stage.process, stateful_clients.StatefulProcess):
            return stage.process.next(state, cohort.values)
        kept = self._client_states.read(cohort.members, stage.process.client_state, stage.first_round)
        return stage.process.next(state, cohort.values, kept)

    def _round(self, round_number: int) -> None:
        stage = self._training.stage_of(round_number)
        started = time.monotonic()
        cohort = self._training.cohort(round_number)
        output = self._next(stage, round_number, cohort)
        trained = time.monotonic()
        measured = output.metrics["client_work"]
        metrics = {
            "stage": stage.name,
            **{name: measured[name] for name in ("clients", "examples")},
            "train_loss": measured["train_loss"],
            "train_accuracy": measured["train_accuracy"],
            "non_finite_clients": measured["non_finite_clients"],
            "dropped_clients": cohort.dropped,
            "stragglers": cohort.stragglers,
            "initial_accuracy": "",
            "personalized_accuracy": "",
        }
        if measured["non_finite_clients"]:
            logging.warning(
                "Round %d: %d of %d clients sent an update that is not finite; left out.%s",
                round_number,
                measured["non_finite_clients"],
                len(cohort.members),
                "" if measured["clients"] else " None is left: the model stays as it was.",
            )
        result = None
        every = self._config.rounds_per_evaluation
        if every and round_number % every == 0:
            weights = stage.process.get_model_weights(output.state)
            main = self._config.strategies[:1]  # the others are judged in the end
            result = self._evaluator.evaluate(weights, self._sample, round_number, strategies=main)
            before, after = self._main_distributions(result)
            metrics.update(initial_accuracy=before.mean, personalized_accuracy=after.mean)
            self._shown = f", {progress.accuracies(before.mean, after.mean, self._evaluated)}"
            self._evaluated = before.mean, after.mean
        with self._interrupt.postponed():
            if isinstance(output, stateful_clients.StatefulOutput):
                # Before the progress: a fault here leaves the states of the rounds before as they are.
                self._client_states.write(cohort.members, output.client_states, round_number)
            now = Progress(
                round_number,
                self._progress.train_seconds + trained - started,
                self._progress.evaluation_seconds + time.monotonic() - trained,
                self._progress.examples + int(measured["examples"]),
                self._progress.expected_seconds,
            )
            if round_number == max(1, self._config.rounds // 10) and self._taken_over is None:
                spent = now.train_seconds + now.evaluation_seconds
                now.expected_seconds = spent / round_number * self._config.rounds
            self._directory.release(metrics, round_number, self._histograms(cohort, result))
            if result is not None:
                self._directory.append_evaluation(result.table(round_number, self._split), round_number, self._split)
            if self._keeps_model(round_number, evaluated=result is not None):
                weights = stage.process.get_model_weights(output.state)
                self._directory.models.save(weights.trainable, round_number)
            # Not before: a fault saves what these say, and a checkpoint must not be ahead of the records.
            self._state, self._progress = output.state, now
            if round_number % self._config.rounds_per_checkpoint == 0 or round_number == self._config.rounds:
                self._save()
                runtime.return_free_memory()
            if isinstance(output, stateful_clients.StatefulOutput):
                self._client_states.prune(self._directory.checkpoints.rounds())
            speed = self._progress.examples / self._progress.train_seconds
            self._line.update(note=f"{speed:,.0f} examples/s{self._shown}")
            logging.info(
                "Round %d: train loss %.4f, train accuracy %.4f, %d examples, %.1f s",
                round_number,
                measured["train_loss"],
                measured["train_accuracy"],
                measured["examples"],
                time.monotonic() - started,
            )

    def _histograms(
        self, cohort: methods.Cohort, result: client_evaluation.EvaluationResult | None
    ) -> dict[str, np.ndarray]:
        """Distributions over clients: of the cohort's train examples, and of accuracies where they were evaluated."""
        found = {}
        if self._config.evaluation_release == "records":
            train = self._data.train
            counts = [train.num_examples(member) for member in cohort.members if member in self._trained]
            found["distribution/train_examples_of_cohort"] = np.array(counts)
        if result is not None:
            strategy = self._config.strategies[0]
            for name, epoch in (("initial", 0), ("personalized", self._config.personalization_epochs)):
                found[f"distribution/{name}_accuracy"] = result.accuracies(strategy, epoch)
        return {name: values for name, values in found.items() if values.size}

    def _main_distributions(self, result: client_evaluation.EvaluationResult):
        strategy = self._config.strategies[0]
        return (result.distributions[strategy, epoch] for epoch in (0, self._config.personalization_epochs))

    def _keeps_model(self, round_number: int, evaluated: bool) -> bool:
        every = self._config.rounds_per_model
        return (every > 0 and round_number % every == 0) or (evaluated and round_number == self._validation_round())

    def _validation_round(self) -> int | None:
        """The evaluated round that is best on validation clients so far; None without such an evaluation."""
        path = self._directory.path / "evaluations.csv"
        if self._split != "validation" or not path.exists():
            return None
        return saved_models.best_on_validation(
            pd.read_csv(path), self._config.strategies[0], self._config.personalization_epochs
        )

    def _finish(self) -> None:
        """The final evaluation, on all test clients, and what is left behind."""
        rounds = self._config.rounds
        started = time.monotonic()
        last, best = self._final_weights(), self._validation_round()
        chosen = None
        if best is not None:
            chosen = best, tff.learning.models.ModelWeights(self._directory.models.load(best), ())
        final = final_evaluation.evaluate(self._evaluator, self._experiment, self._data, last, self._line, chosen)
        self._line.step("reading the images of the clients that changed most")
        shown = writers.predict(self._experiment, self._model, self._data, self._evaluator, last, final.test)
        self._progress.evaluation_seconds += time.monotonic() - started
        with self._interrupt.postponed():
            self._directory.models.save(last.trainable, rounds)
            every = self._config.rounds_per_model
            others = () if best is None else (best,)
            self._directory.models.keep({rounds, *others, *(range(every, rounds, every) if every else ())})
            self._directory.append_evaluation(final.test.table(rounds, "test"), rounds, "test")
            self._directory.write_table("distribution.csv", final.test.histogram_table())
            if final.test.clients is not None:
                self._directory.write_table("clients.csv", final.test.clients)
            if final.at_round is not None and final.at_round.test.clients is not None:
                self._directory.write_table("by_round.csv", final.at_round.clients_table(self._config.strategies[0]))
            if final.choice is not None:
                self._directory.write_table("choice.csv", final.choice.candidates)
                if final.choice.clients is not None:
                    self._directory.write_table("chosen_clients.csv", final.choice.clients)
            if final.by_examples:
                self._directory.write_table("k_shot.csv", final.k_shot_table(rounds))
            if shown is not None:
                files.save_arrays(self._directory.path / "gallery.npz", **shown)
            self._directory.write_json(
                "summary.json", summary.build_summary(self._directory, self._data, final, self._progress)
            )

    def _final_weights(self) -> tff.learning.models.ModelWeights:
        if self._state is None:
            return tff.learning.models.ModelWeights(self._training.initial_weights.flat, ())
        return self._training.stage_of(max(1, self._config.rounds)).process.get_model_weights(self._state)
