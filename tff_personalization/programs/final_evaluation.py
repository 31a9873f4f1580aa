"""The final evaluation of a model: with the flags' settings, as validation clients choose, and with fewer examples.

    test:         every strategy, at every epoch, on the test clients
    choice:       every strategy, epoch and learning rate on the validation clients; the best on the test clients
    by examples:  as `test`, with each client's train part cut to its first k examples of a permutation
    at round:     as `test`, with the model of the evaluated round that was best on the validation clients
    participants: the main strategy, and the models that participants keep, on the participants' own test parts

Nothing is ever chosen on test clients.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from tff_personalization import global_weights, metrics
from tff_personalization.experiment import settings
from tff_personalization.personalization import distributions
from tff_personalization.personalization import strategies as strategies_lib
from tff_personalization.programs import client_evaluation, rounds


@dataclasses.dataclass(frozen=True)
class Choice:
    """The best candidate on the validation clients, and its results on the test clients.

    Attributes:
        candidates: one row per learning rate, strategy and epoch, evaluated on the validation clients; `chosen` is true
            in one of them. `learning_rate` is missing if a strategy does not read the personalization optimizer.
        before: the distribution of accuracy over test clients at epoch 0 of the chosen strategy.
        after: the distribution at the chosen epoch, with the chosen learning rate.
        clients: one row per test client at epoch 0 and at the chosen epoch; None if only aggregates are released.
    """

    candidates: pd.DataFrame
    before: distributions.AccuracyDistribution
    after: distributions.AccuracyDistribution
    clients: pd.DataFrame | None

    @property
    def chosen(self) -> pd.Series:
        """The row of the chosen candidate."""
        return self.candidates[self.candidates.chosen].iloc[0]


@dataclasses.dataclass(frozen=True)
class AtRound:
    """The test clients, evaluated with the model of another round than the last one.

    Attributes:
        round_number: the round.
        test: the main strategy on the test clients.
    """

    round_number: int
    test: client_evaluation.EvaluationResult

    def clients_table(self, strategy: str) -> pd.DataFrame | None:
        """One row per client and epoch under a strategy, for by_round.csv; None if only aggregates are released."""
        if self.test.clients is None:
            return None
        table = self.test.clients[self.test.clients.strategy == strategy]
        return table.assign(round=self.round_number)[["round", *table.columns]]


@dataclasses.dataclass(frozen=True)
class FinalEvaluation:
    """The results of the final evaluation.

    Attributes:
        test: the test clients, with the flags' settings.
        choice: the choice of the validation clients; None if none of them has test examples.
        by_examples: the test clients with fewer train examples, by their number or "all", in the order of the flag.
        at_round: the evaluated round that the validation clients choose; None without such evaluations.
        participants: the participants; None if none are evaluated.
    """

    test: client_evaluation.EvaluationResult
    choice: Choice | None
    by_examples: Mapping[str, client_evaluation.EvaluationResult]
    at_round: AtRound | None
    participants: client_evaluation.EvaluationResult | None = None

    def tables(self, config: settings.RunSettings) -> dict[str, pd.DataFrame]:
        """The tables to record, by file name. Per-client tables are among them only if records are released."""
        found = {
            "distribution.csv": self.test.histogram_table(),
            "clients.csv": self.test.clients,
            "by_round.csv": None if self.at_round is None else self.at_round.clients_table(config.strategies[0]),
            "choice.csv": None if self.choice is None else self.choice.candidates,
            "chosen_clients.csv": None if self.choice is None else self.choice.clients,
            "participants.csv": None if self.participants is None else self.participants.clients,
            "k_shot.csv": self._k_shot_table(config.rounds) if self.by_examples else None,
        }
        return {name: table for name, table in found.items() if table is not None}

    def _k_shot_table(self, round_number: int) -> pd.DataFrame:
        """One row per number of train examples, strategy and epoch, for k_shot.csv."""
        tables = {examples: result.table(round_number, "test") for examples, result in self.by_examples.items()}
        return pd.concat(tables, names=["examples"]).reset_index("examples").reset_index(drop=True)


def evaluate(
    program: rounds.Program,
    weights: global_weights.GlobalWeights,
    chosen: tuple[int, global_weights.GlobalWeights] | None,
    participants: Sequence[str],
    kept: client_evaluation.Kept | None,
) -> FinalEvaluation:
    """Evaluates a run's global model. Finished calls are on disk, and a run that resumes does not make them again.

    Args:
        program: the run.
        weights: the global model after the last round.
        chosen: the round that was best on validation clients, and the global model after it.
        participants: the participants to evaluate.
        kept: gives the models that they keep, if they keep any.
    """
    config, split = program.experiment.config, program.data.split

    def judge(
        clients: Sequence[str],
        description: str,
        model: global_weights.GlobalWeights = weights,
        round_number: int = config.rounds,
        **settings: Any,
    ) -> client_evaluation.EvaluationResult:
        program.line.step(description, len(clients), unit="client")
        how: dict[str, Any] = {"seed": config.evaluation_seed, "finished": program.writer.finished_calls, **settings}
        return program.evaluator.evaluate(model, clients, round_number, program.line, **how)

    test = judge(split.test, "final evaluation")
    main: dict[str, Any] = {"strategies": config.strategies[:1]}
    at_round = None
    if chosen is not None:
        best, model = chosen
        is_last = best == config.rounds
        result = test if is_last else judge(split.test, f"with round {best}", model, best, **main)
        at_round = AtRound(best, result)
    return FinalEvaluation(
        test,
        _choose(program, test, judge) if split.validation else None,
        {
            k: test if k == "all" else judge(split.test, f"with {k} examples", most_examples=int(k))
            for k in config.personalization_examples
        },
        at_round,
        judge(participants, "participants", kept=kept, **main) if participants else None,
    )


def _choose(
    program: rounds.Program,
    test: client_evaluation.EvaluationResult,
    judge: Callable[..., client_evaluation.EvaluationResult],
) -> Choice | None:
    experiment, split = program.experiment, program.data.split
    config, given_rate = experiment.config, experiment.optimizers["personalization"].learning_rate
    tuned = [name for name in config.strategies if strategies_lib.STRATEGIES[name].tuned]
    tables: list[pd.DataFrame] = []
    for rate in experiment.values["personalization_learning_rates"] or [given_rate]:
        names = tuned if tables else config.strategies  # strategies without a rate are evaluated once
        result = judge(split.validation, f"validation, rate {rate:g}", strategies=names, learning_rate=rate)
        table = result.table(config.rounds, "validation")
        table.insert(0, "learning_rate", table.strategy.isin(tuned).map({True: rate, False: math.nan}))
        tables.append(table)
    candidates = pd.concat(tables, ignore_index=True)
    best = best_candidate(candidates, test.metric)
    if best is None:
        return None
    candidates["chosen"] = candidates.index == best
    chosen = candidates.loc[best]
    strategy, rate = chosen.strategy, chosen.learning_rate
    if strategy in tuned and rate != given_rate:
        test = judge(split.test, f"chosen, rate {rate:g}", strategies=[strategy], learning_rate=rate)
    epoch, clients = int(chosen.epoch), test.clients
    if clients is not None:
        clients = clients[(clients.strategy == strategy) & clients.epoch.isin([0, epoch])]
    return Choice(candidates, test.distributions[strategy, 0], test.distributions[strategy, epoch], clients)


def best_candidate(candidates: pd.DataFrame, metric: metrics.Metric = metrics.ACCURACY) -> int | None:
    """The label of the row with the best `accuracy_mean`, then the lowest `epoch`, then the first.

    None if no row has an accuracy.
    """
    ranked = candidates.dropna(subset="accuracy_mean").sort_values(
        ["accuracy_mean", "epoch"], ascending=[not metric.higher_is_better, True], kind="stable"
    )
    return None if ranked.empty else ranked.index[0]
