"""summary.json: the figures of a finished run."""

from typing import Any

import pandas as pd

from tff_personalization import aggregators, cohorts, methods, metrics, privacy
from tff_personalization.algorithms import communication, method
from tff_personalization.experiment import config as config_lib
from tff_personalization.personalization import distributions
from tff_personalization.programs import client_evaluation, final_evaluation, rounds
from tff_personalization.records import places, run_directory


def build_summary(
    program: rounds.Program, final: final_evaluation.FinalEvaluation, state: rounds.State
) -> dict[str, Any]:
    """The summary of a run from its final evaluation.

    Accuracies are over the test clients with test examples; standard deviations are over clients. Everything except
    `times` is the same for the same settings. `choice` is the final choice of the validation clients, if there are any.
    `validation_round` is the evaluated round that was best on them, with its model's results on test clients.
    `by_examples` is the main strategy after all epochs with fewer train examples. `participants`, if evaluated, are
    clients that took part in training, with the main strategy and with the model that each keeps. `communication` has
    the bytes of one client in a round of each stage, and those of all clients that took part in all rounds; null where
    they depend on the cohort or on the values. Pooled training has none. `times` leaves out
    rounds that the run took over. Its `expected_seconds_of_rounds` is the time of training and evaluations as estimated
    after a tenth of the rounds.
    """
    directory, data, result = program.writer.directory, program.data, final.test
    config = directory.experiment.config
    strategy, epochs = config.strategies[0], config.personalization_epochs
    train_seconds = state.train_seconds
    metrics_of_rounds = _metrics_of_rounds(directory, result.metric)
    return {
        "run_name": directory.name,
        "method": config.method,
        "task": config.task,
        "source": data.source,
        "synthetic": data.synthetic,
        "seed": config.seed,
        "rounds": config.rounds,
        "strategy": strategy,
        "personalization_epochs": epochs,
        "test_clients": len(data.split.test),
        "test_clients_without_test_data": result.without_test_examples,
        "test_clients_without_train_data": sum(not data.train.num_examples(client) for client in data.split.test),
        **_accuracies(result, strategy, epochs),
        "strategies": _by_strategy(result, epochs),
        "choice": None if final.choice is None else _choice(final.choice),
        "by_examples": {
            examples: {
                "personalized_accuracy": _spread(judged.distributions[strategy, epochs]),
                **_gain(judged.distributions[strategy, epochs]),
            }
            for examples, judged in final.by_examples.items()
        },
        "validation_round": None if final.at_round is None else _at_round(final.at_round, strategy, epochs),
        **({} if final.participants is None else {"participants": _participants(final.participants, epochs)}),
        **_privacy(directory.experiment, len(data.split.train)),
        **_communication(program.training, metrics_of_rounds, methods.get(config.method).pooled),
        "rounds_to_target": {
            "target_accuracy": config.target_accuracy,
            **_rounds_to_target(metrics_of_rounds, config.target_accuracy, result.metric),
        },
        "times": {
            "wall_seconds": round(train_seconds + state.evaluation_seconds, 1),
            "train_seconds": round(train_seconds, 1),
            "evaluation_seconds": round(state.evaluation_seconds, 1),
            "expected_seconds_of_rounds": round(state.expected_seconds, 1) or None,
            "examples_per_second": round(state.examples / train_seconds, 1) if train_seconds else None,
        },
    }


def _by_strategy(result: client_evaluation.EvaluationResult, epochs: int) -> dict[str, Any]:
    names = dict.fromkeys(strategy for strategy, _ in result.distributions)
    return {name: _accuracies(result, name, epochs) for name in names}


def _participants(result: client_evaluation.EvaluationResult, epochs: int) -> dict[str, Any]:
    counted = next(iter(result.distributions.values())).clients
    return {
        "clients": counted + result.without_test_examples,
        "clients_without_test_data": result.without_test_examples,
        "strategies": _by_strategy(result, epochs),
    }


def _at_round(at_round: final_evaluation.AtRound, strategy: str, epochs: int) -> dict[str, Any]:
    return {"round": at_round.round_number, **_accuracies(at_round.test, strategy, epochs)}


def _choice(choice: final_evaluation.Choice) -> dict[str, Any]:
    chosen = choice.chosen
    return {
        "validation_clients": int(chosen.clients),
        "validation_accuracy": float(chosen.accuracy_mean),
        "strategy": chosen.strategy,
        "epoch": int(chosen.epoch),
        "learning_rate": None if pd.isna(chosen.learning_rate) else float(chosen.learning_rate),
        "initial_accuracy": _spread(choice.before),
        "personalized_accuracy": _spread(choice.after),
        **_gain(choice.after),
    }


def _accuracies(result: client_evaluation.EvaluationResult, strategy: str, epochs: int) -> dict[str, Any]:
    """Initial and personalized accuracy under a strategy, and the gain."""
    before, after = (result.distributions[strategy, epoch] for epoch in (0, epochs))
    return {"initial_accuracy": _spread(before), "personalized_accuracy": _spread(after), **_gain(after)}


def _spread(d: distributions.AccuracyDistribution) -> dict[str, Any]:
    quantiles = {f"{q:g}": value for q, value in d.quantiles.items()}
    return {"mean": d.mean, "weighted_mean": d.weighted_mean, "sd": d.sd, "quantiles": quantiles}


def _gain(d: distributions.AccuracyDistribution) -> dict[str, Any]:
    return {
        "gain": {"mean": d.gain, "sd": d.gain_sd},
        "share_gaining": d.share_gaining,
        "share_hurt": d.share_hurt,
        "share_unchanged": d.share_unchanged,
    }


def _privacy(experiment: config_lib.Experiment, population: int) -> dict[str, Any]:
    """The privacy loss of training, if its aggregator is differentially private."""
    if experiment.values["aggregator"] != "dp":
        return {}
    dp, cohort = experiment.read(aggregators.DifferentialPrivacy), experiment.read(cohorts.Settings)
    size = cohort.size(population)
    spent = privacy.spent(dp.dp_noise_multiplier, size, population, experiment.config.rounds, dp.dp_delta)
    return {"privacy": spent}


def _metrics_of_rounds(directory: run_directory.RunDirectory, metric: metrics.Metric) -> pd.DataFrame | None:
    """The table metrics.csv; None if there were no rounds."""
    path = directory.path / "metrics.csv"
    columns = ("round", "stage", "clients", "initial_accuracy", "personalized_accuracy")
    return places.read_csv(path, columns, metric=metric) if path.exists() else None


def _communication(training: method.Training, table: pd.DataFrame | None, pooled: bool) -> dict[str, Any]:
    if pooled:
        return {}
    stages = {stage.name: communication.of_process(stage.process)._asdict() for stage in training.stages}
    totals: dict[str, int | None] = {"down": 0, "up": 0}
    if table is not None:
        clients = table.groupby("stage")["clients"].sum()
        for way in totals:
            of_stages = [stages[name][way] for name in clients.index]
            known = None not in of_stages
            totals[way] = int(sum(clients * of_stages)) if known else None
    return {"communication": {"stages": stages, **totals}}


def _rounds_to_target(table: pd.DataFrame | None, target: float, metric: metrics.Metric) -> dict[str, int | None]:
    """The first evaluated round at which each accuracy reaches the target; None if it never does."""
    first: dict[str, int | None] = {"initial": None, "personalized": None}
    if table is None:
        return first
    for name in first:
        reached = table[metric.gain(target, table[f"{name}_accuracy"]) >= 0]
        if len(reached):
            first[name] = int(reached["round"].iloc[0])
    return first
