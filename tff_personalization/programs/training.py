"""One run, from an experiment to its summary."""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Mapping
from typing import Any

import tensorflow_federated as tff
from absl import logging

from analysis import gallery, names
from tff_personalization import cohorts, errors, global_weights, methods, seeds, startup
from tff_personalization.execution import connections, interruption, remote_workers, runtime, worker_binary
from tff_personalization.experiment import config as config_lib
from tff_personalization.experiment import settings
from tff_personalization.experiment import setup as setup_lib
from tff_personalization.personalization import evaluation
from tff_personalization.programs import (
    checks,
    client_evaluation,
    final_evaluation,
    galleries,
    participants,
    progress,
    rounds,
    summary,
)
from tff_personalization.records import (
    checkpoints,
    coroutines,
    earlier_run,
    run_directory,
    run_records,
    run_writer,
    saved_models,
)
from tff_personalization.tasks import federated_data


def run(experiment: config_lib.Experiment, interrupt: interruption.Interruption) -> run_directory.RunDirectory:
    """Runs an experiment until its summary is written, or resumes it from an earlier start.

    Args:
        experiment: what to run.
        interrupt: postpones signals while files are written.

    Returns:
        The finished run's directory.

    Raises:
        UserError: the data cannot be read, or the run directory belongs to another experiment.
        Interrupted: a signal stopped the run. All results so far are saved.
    """
    coroutines.start()
    directory = _directory(experiment)
    config = experiment.config
    if directory.finished:
        _say_which_models_it_lacks(directory, config.rounds)
        return directory
    data = federated_data.load(config, look=True, of_source=experiment.of_source)
    earlier = _earlier(directory, data)
    cores = config.cores or worker_binary.available_cores()
    begun = directory.record() if directory.begun else None
    threads = _threads(config, cores, begun or (earlier.run.config if earlier else {}))
    how: dict[str, Any] = {"cores": cores, "threads_per_client": threads, "clients_per_call": config.clients_per_call}
    if (cohort := _cohort(experiment, data)) is not None:
        how["clients_of_a_round"] = cohort
    if earlier is not None:
        how["rounds_taken_over"] = earlier.origin
    with run_writer.opened(directory, data, how) as writer:  # not earlier, so that unreadable data leaves no directory
        _say(directory, data, f"{cores} at once, threads for each: {threads}")
        # Not earlier, so that a refusal prints only its one line.
        first = "connecting to the workers" if config.workers else "starting TFF's worker"
        with progress.Line(first) as line, _computing(config, cores, threads, writer):
            line.step(f"building {names.method(config.method)}")
            try:
                program = _program(experiment, interrupt, data, writer, line)
            except Exception:  # the network or the method is refused
                writer.remove_if_unused()
                raise
            state = _restore(program, earlier)
            _say_which_models_it_lacks(directory, state.round_number)
            _finish(program, rounds.run(program, state))
    return directory


def _threads(config: settings.RunSettings, cores: int, record: Mapping[str, Any]) -> int:
    """The threads of each client. A run with rounds on record keeps its number, because another one changes digits.

    Args:
        config: the settings.
        cores: the cores of this start.
        record: config.json of the run that has computed earlier rounds; empty for none.
    """
    of_method = cores if methods.get(config.method).pooled else 1
    return config.threads_per_client or record.get("threads_per_client") or of_method


def _directory(experiment: config_lib.Experiment) -> run_directory.RunDirectory:
    """The experiment's run directory. A finished run there that has the experiment's first rounds is renamed."""
    try:
        return run_directory.RunDirectory(experiment)
    except run_directory.OtherSettings as refusal:
        moved = earlier_run.set_aside(refusal.path, experiment)
        if moved is None:
            raise
        print(f"{refusal.path} has the first rounds of this run; it is renamed to {moved}.", file=sys.stderr)
        return run_directory.RunDirectory(experiment)


def _earlier(
    directory: run_directory.RunDirectory, data: federated_data.FederatedData
) -> earlier_run.EarlierRounds | None:
    """The rounds that the run takes over: from the run of --rounds_from, or from one in the same directory."""
    experiment = directory.experiment
    given = experiment.config.rounds_from
    if directory.has_checkpoints or given == earlier_run.NONE:
        return None
    if given:
        return earlier_run.read(experiment, data.sha256)
    path = earlier_run.find(directory.path.parent, experiment)
    if path is None:
        return None
    try:
        found = earlier_run.read(experiment, data.sha256, path)
    except errors.UserError as error:
        logging.info("The rounds of an earlier run are not reused: %s", error)
        return None
    print(
        f"Rounds 1 to {found.rounds} are those of {path}; --rounds_from={earlier_run.NONE} computes them again.",
        file=sys.stderr,
    )
    return found


def _say(directory: run_directory.RunDirectory, data: federated_data.FederatedData, how: str) -> None:
    """Describes the data and the next steps on standard error."""
    for note in data.notes:
        print(note, file=sys.stderr)
    for finding in data.findings:
        logging.warning("Check the data: %s", finding)
    config = directory.experiment.config
    where = f"On {', '.join(map(_with_its_way, config.workers))}" if config.workers else how
    counts = ", ".join(f"{count:,} {split}" for split, count in data.split.counts().items() if count)
    print(f"{data.source}: {counts} clients. {where}. Run directory: {directory.path}", file=sys.stderr)
    cohort = _cohort(directory.experiment, data)
    if cohort is not None and cohort < directory.experiment.values["clients_per_round"]:
        logging.warning(
            "--clients_per_round=%d is more than the train clients: each round uses all %d of them.",
            directory.experiment.values["clients_per_round"],
            cohort,
        )
    if "rounds_per_evaluation" in directory.experiment.given and config.rounds_per_evaluation > config.rounds > 0:
        logging.warning(
            "No evaluation between rounds: --rounds_per_evaluation=%d is more than --rounds=%d.",
            config.rounds_per_evaluation,
            config.rounds,
        )


def _say_which_models_it_lacks(directory: run_directory.RunDirectory, computed: int) -> None:
    """Warns if the rounds of earlier starts did not keep the models of --rounds_per_model; none is computed again."""
    config, kept = directory.experiment.config, saved_models.SavedModels(directory.path / "models").rounds()
    every = config.rounds_per_model
    if every and not set(range(every, computed + 1, every)) <= set(kept):
        logging.warning(
            "%s has computed %d rounds and kept %s: to keep those of --rounds_per_model=%d, give another --run_name.",
            directory.path,
            computed,
            f"the models of rounds {', '.join(map(str, kept))} only" if kept else "no models",
            every,
        )


def _cohort(experiment: config_lib.Experiment, data: federated_data.FederatedData) -> int | None:
    """The number of clients in a round; None for a method that does not draw them."""
    if "clients_per_round" not in methods.get(experiment.config.method).settings.parts():
        return None
    return experiment.read(cohorts.Settings).size(len(data.split.train))


def _with_its_way(address: str) -> str:
    proxy = connections.proxy_to(address)
    return f"{address} through the proxy {proxy}" if proxy else address


def _computing(
    config: settings.RunSettings, cores: int, threads: int, writer: run_writer.RunWriter
) -> contextlib.AbstractContextManager[Any]:
    """A context in which TFF computes on this machine, or on the workers that the settings name."""
    if config.workers:
        return remote_workers.execution_context(config.workers, config.clients_per_call)
    log = None if logging.level_debug() else writer.worker_log
    return runtime.execution_context(cores, log, threads, config.clients_per_call, config.require_closed_worker)


def _program(
    experiment: config_lib.Experiment,
    interrupt: interruption.Interruption,
    data: federated_data.FederatedData,
    writer: run_writer.RunWriter,
    line: progress.Line,
) -> rounds.Program:
    """Builds everything that is the same in all rounds."""
    config, setup = experiment.config, setup_lib.setup(experiment, data)
    with startup.without_collections():
        training = methods.get(config.method).build(setup)
    checks.check_training(config.method, training)
    evaluation.check_network(setup.model, config.strategies)  # before the first round, not after the last one
    candidates = data.split.validation or data.split.test
    order = seeds.generator(config.seed, "evaluation_sample").permutation(len(candidates))
    return rounds.Program(
        experiment=experiment,
        data=data,
        model=setup.model,
        training=training,
        evaluator=client_evaluation.PersonalizationEvaluator(experiment, setup.model, data, training.initial_weights),
        sample=tuple(candidates[i] for i in order[: config.evaluation_clients]),  # the same in every evaluation
        split="validation" if data.split.validation else "test_sample",
        writer=writer,
        interrupt=interrupt,
        line=line,
    )


def _restore(program: rounds.Program, earlier: earlier_run.EarlierRounds | None) -> rounds.State:
    """The state after the newest checkpoint or the rounds taken over. Cuts the records to it."""
    newest = program.writer.checkpoints.load_newest(functools.partial(_structure, program))
    program.writer.resume_after(newest[0] if newest else 0)
    if newest is not None:
        logging.info("Resuming after round %d of %s", newest[0], program.writer.directory.path)
        state = rounds.State.from_program_state(newest[1])
    elif earlier is not None:
        state = _take_over(program, earlier)
    else:
        return rounds.State()
    return dataclasses.replace(state, best=_best_so_far(program))


def _structure(program: rounds.Program, round_number: int) -> Any:
    """The structure of the contents of a checkpoint after a round."""
    process = program.training.stage_of(round_number).process
    return rounds.State(learning=process.initialize()).as_program_state()


def _take_over(program: rounds.Program, earlier: earlier_run.EarlierRounds) -> rounds.State:
    """Makes another run's rounds the first rounds of this run."""
    if earlier.with_state:
        learning = checkpoints.read(earlier.checkpoints, earlier.rounds, functools.partial(_structure, program))[
            "learning"
        ]
    else:
        process = program.training.stage_of(earlier.rounds).process
        weights = tff.learning.models.ModelWeights(earlier.models[earlier.rounds], ())
        learning = process.set_model_weights(process.initialize(), weights)
    with program.interrupt.postponed():
        program.writer.take_over(earlier)
        state = rounds.State(learning, earlier.rounds)
        rounds.save(program, state)
    return state


def _best_so_far(program: rounds.Program) -> saved_models.Best | None:
    """The recorded round that is best on validation clients."""
    config, directory = program.experiment.config, program.writer.directory.path
    if program.split != "validation" or not (directory / "evaluations.csv").exists():
        return None
    return saved_models.best_on_validation(
        run_records.read(directory).evaluations,
        config.strategies[0],
        config.personalization_epochs,
        program.model.scoring.metric,
    )


def _finish(program: rounds.Program, state: rounds.State) -> None:
    """Runs the final evaluation on all test clients, and writes its records."""
    config, writer, started = program.experiment.config, program.writer, time.monotonic()
    writer.check_tables()
    last, chosen = _weights_after(program, state), None
    if state.best is not None:
        best = state.best.round_number
        chosen = best, program.training.initial_weights.like(writer.models.load(best))
    judged = participants.drawn(program.training, config, program.data)
    kept = participants.kept(program.training, config.rounds, writer.client_states, judged)
    final = final_evaluation.evaluate(program, last, chosen, judged, kept)
    if config.plots:
        program.line.step("reading the examples of the clients that changed most")
    shown = galleries.predict(program, last, final.test)
    state = dataclasses.replace(state, evaluation_seconds=state.evaluation_seconds + time.monotonic() - started)
    with program.interrupt.postponed():
        writer.check_place()
        writer.models.save(last.flat, config.rounds)
        every = config.rounds_per_model
        others = {chosen[0]} if chosen else set()
        writer.models.keep({config.rounds, *others, *(range(every, config.rounds, every) if every else ())})
        writer.append_evaluation(final.test.table(config.rounds, "test"), config.rounds, "test")
        for name, table in final.tables(config).items():
            writer.write_table(name, table)
        if shown is not None:
            writer.write_arrays(gallery.FILE, shown)
        writer.write_json("summary.json", summary.build_summary(program, final, state))
        writer.finished_calls.clear()


def _weights_after(program: rounds.Program, state: rounds.State) -> global_weights.GlobalWeights:
    """The global weights after the last round."""
    weights = program.training.initial_weights
    if state.learning is None:
        return weights
    process = program.training.stage_of(state.round_number).process
    return weights.like(process.get_model_weights(state.learning).trainable)
