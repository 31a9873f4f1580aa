"""Runs the personalization evaluation over many clients, a limited number at a time, and makes tables of it."""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow_federated as tff

from tff_personalization import global_weights, metrics, seeds, startup
from tff_personalization.algorithms import stateful_clients
from tff_personalization.experiment import config as config_lib
from tff_personalization.models import functional
from tff_personalization.personalization import distributions, evaluation, predictions
from tff_personalization.programs import checks, progress
from tff_personalization.records import finished_calls
from tff_personalization.tasks import federated_data

_LEAST_OF_A_CALL = 10  # with fewer clients, cores would often wait for the last one


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """The result of an evaluation of some clients.

    Attributes:
        distributions: the distribution of accuracy by (strategy, epoch), strategies in the order of the flag.
        clients: one row per client × strategy × epoch, or None if only aggregates were released.
        without_test_examples: how many clients had no test examples, and so count in no average.
        metric: the metric that is called accuracy here.
    """

    distributions: Mapping[tuple[str, int], distributions.AccuracyDistribution]
    clients: pd.DataFrame | None
    without_test_examples: int
    metric: metrics.Metric = metrics.ACCURACY

    def table(self, round_number: int, split: str) -> pd.DataFrame:
        """One row per strategy and epoch, for evaluations.csv."""
        return pd.DataFrame(
            {
                "round": round_number,
                "split": split,
                "strategy": strategy,
                "epoch": epoch,
                "clients": d.clients,
                "accuracy_mean": d.mean,
                "accuracy_weighted_mean": d.weighted_mean,
                "accuracy_sd": d.sd,
                **{f"accuracy_q{round(100 * q):02d}": value for q, value in d.quantiles.items()},
                "loss_mean": d.loss,
                "gain_mean": d.gain,
                "share_gaining": d.share_gaining,
                "share_hurt": d.share_hurt,
            }
            for (strategy, epoch), d in self.distributions.items()
        )

    def accuracies(self, strategy: str, epoch: int) -> np.ndarray:
        """The accuracy of each client that has test examples.

        If only aggregates were released, each client has the middle of its bin of the histogram.
        """
        if self.clients is not None:
            rows = self.clients[(self.clients["strategy"] == strategy) & (self.clients["epoch"] == epoch)]
            return rows["accuracy"].dropna().to_numpy()
        histogram = self.distributions[strategy, epoch].histogram
        return np.repeat(self.metric.upper * (np.arange(len(histogram)) + 0.5) / len(histogram), histogram)

    def histogram_table(self) -> pd.DataFrame:
        """One row per strategy, epoch and bin of accuracy, for distribution.csv."""
        edges = self.metric.upper * np.linspace(0, 1, evaluation.HISTOGRAM_BINS + 1).round(6)
        return pd.DataFrame(
            {"strategy": strategy, "epoch": epoch, "bin_low": low, "bin_high": high, "clients": int(count)}
            for (strategy, epoch), d in self.distributions.items()
            for low, high, count in zip(edges[:-1], edges[1:], d.histogram, strict=True)
        )


class Kept(NamedTuple):
    """The states that clients keep, for the evaluation of their own models.

    Attributes:
        personal: makes a client's own model from its state.
        initial: a client's state before its first round.
        read: returns the states of some clients.
    """

    personal: stateful_clients.PersonalFn
    initial: Any
    read: Callable[[Sequence[str]], list[Any]]


class PersonalizationEvaluator:
    """Evaluates a global model on clients before and after personalization, with an experiment's settings."""

    def __init__(
        self,
        experiment: config_lib.Experiment,
        model: functional.SeededModel,
        data: federated_data.FederatedData,
        initial_weights: global_weights.GlobalWeights,
    ):
        config = experiment.config
        self._experiment = experiment
        self._model = model
        self._initial_weights = initial_weights
        self._seed = config.seed
        self._strategies = list(config.strategies)
        self._optimizer = experiment.optimizers["personalization"]
        self._epochs = config.personalization_epochs
        self._data = data
        self._release = config.evaluation_release
        self._computations: dict[tuple[Sequence[str], float, bool], tff.Computation] = {}

    def _computation(self, strategies: Sequence[str], learning_rate: float, kept: Kept | None) -> tff.Computation:
        # Built at first use, so that the first round does not wait for it.
        key = (tuple(strategies), learning_rate, kept is not None)
        if key not in self._computations:
            optimizer = dataclasses.replace(self._optimizer, learning_rate=learning_rate)
            with startup.without_collections():
                self._computations[key] = evaluation.build_personalization_evaluation(
                    self._model,
                    optimizer.build(),
                    epochs=self._epochs,
                    batch_size=self._experiment.values["personalization_batch_size"],
                    strategies=strategies,
                    release=self._release,
                    own_settings=self._experiment.read,
                    initial_weights=self._initial_weights,
                    **({} if kept is None else {"personal": kept.personal, "client_state": kept.initial}),
                )
        return self._computations[key]

    def evaluate(
        self,
        weights: global_weights.GlobalWeights,
        clients: Sequence[str],
        round_number: int,
        line: progress.Line | None = None,
        *,
        strategies: Sequence[str] | None = None,
        learning_rate: float | None = None,
        most_examples: int | None = None,
        seed: int | None = None,
        kept: Kept | None = None,
        finished: finished_calls.FinishedCalls | None = None,
    ) -> EvaluationResult:
        """Evaluates the global model `weights` on the given clients.

        Shuffling and dropout depend on the run's seed, the round and the client.

        Args:
            weights: the global model.
            clients: the ids of the clients.
            round_number: the round after which the model was kept.
            line: a progress line that counts clients, if given.
            strategies: their names; None for those of the flags.
            learning_rate: that of the personalization optimizer; None for that of the flags.
            most_examples: cuts each client's train part to this many examples, the first of a permutation that depends
                on the seed and the client; None keeps all.
            seed: replaces the run's seed.
            kept: also evaluates the models that these clients keep, as a strategy with the name `evaluation.KEPT`.
            finished: has the results of earlier calls, which are not made again, and saves those of new calls.
        """
        strategies = self._strategies if strategies is None else list(strategies)
        learning_rate = self._optimizer.learning_rate if learning_rate is None else learning_rate

        def call(chunk: list[tuple[int, str]]) -> finished_calls.Results:
            values = [self._client_value(i, client, round_number, most_examples, seed) for i, client in chunk]
            if kept is not None:
                states = kept.read([client for _, client in chunk])
                values = [value | {"kept": state} for value, state in zip(values, states, strict=True)]
            computation = self._computation(strategies, learning_rate, kept)
            output = computation(tff.learning.models.ModelWeights(weights.flat, ()), values)
            return output if self._release == "records" else [output]

        names = strategies if kept is None else [*strategies, evaluation.KEPT]
        released: list[Mapping[str, np.ndarray]] = []
        size = clients_of_a_call(self._experiment.config.clients_per_call, self._release, len(names))
        for chunk in _chunks(list(enumerate(clients)), size):
            if finished is None:
                released.extend(call(chunk))
            else:
                of = [chunk, names, learning_rate, round_number, most_examples, seed]
                released.extend(finished.results(functools.partial(call, chunk), weights.flat, of))
            if line is not None:
                line.update(len(chunk))
        if self._release == "records":
            return self._result_of_records(released, clients, names, round_number)
        return self._result_of_sums(released, names, round_number)

    def _result_of_records(
        self,
        records: Sequence[Mapping[str, np.ndarray]],
        clients: Sequence[str],
        names: Sequence[str],
        round_number: int,
    ) -> EvaluationResult:
        """The result of each client's record."""
        metric = self._model.scoring.metric
        for record in records:
            whose = f"of client {clients[int(record['index'])]}"
            checks.check_counts(names, record["correct"], int(record["test_predictions"]), whose, metric)
        checks.warn_of_losses(names, np.array([record["loss_sum"] for record in records]), round_number)
        table = distributions.client_table(records, clients, names)
        by_key = {
            key: distributions.from_table(table, *key, evaluation.HISTOGRAM_BINS, metric)
            for key in itertools.product(names, range(self._epochs + 1))
        }
        missing = sum(int(record["test_predictions"]) == 0 for record in records)
        return EvaluationResult(by_key, table, missing, metric)

    def _result_of_sums(
        self, parts: Sequence[Mapping[str, np.ndarray]], names: Sequence[str], round_number: int
    ) -> EvaluationResult:
        """The result of sums over parts of the clients."""
        metric = self._model.scoring.metric
        sums = {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}
        checks.check_counts(names, sums["correct"], int(sums["test_predictions"]), "of all clients", metric)
        checks.warn_of_losses(names, np.asarray(sums["loss"])[np.newaxis], round_number)
        by_key = {
            (name, epoch): distributions.from_sums(sums, place, epoch, metric)
            for (place, name), epoch in itertools.product(enumerate(names), range(self._epochs + 1))
        }
        return EvaluationResult(by_key, None, int(sums["clients_without_test_examples"]), metric)

    def predictions(
        self, weights: global_weights.GlobalWeights, clients: Sequence[str], round_number: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Predicts the test examples of some clients as in the final evaluation, with the strategy fine_tune.

        Args:
            weights: the global model.
            clients: the ids of the clients.
            round_number: the round after which the model was kept.

        Yields:
            For each client, in their order: `images` and `labels`, its test part; `before` and `after`, the predicted
            classes, int32 of shape (n,), −1 for none; `client`, its id n times.
        """
        config = self._experiment.config
        computation = predictions.build_predictions(
            self._model,
            weights,
            self._optimizer.build(),
            self._epochs,
            self._experiment.values["personalization_batch_size"],
        )
        for chunk in _chunks(list(enumerate(clients)), config.clients_per_call):
            values = [self._client_value(i, client, round_number, seed=config.evaluation_seed) for i, client in chunk]
            output = computation(tff.learning.models.ModelWeights(weights.flat, ()), values)
            for found in sorted(output, key=lambda found: int(found["index"])):
                client = clients[int(found["index"])]
                images, labels = self._data.test.examples(client)
                predicted = {name: found[name] for name in ("before", "after")}
                yield {"images": images, "labels": labels, **predicted, "client": np.full(len(labels), client)}

    def _client_value(
        self,
        index: int,
        client: str,
        round_number: int,
        most_examples: int | None = None,
        seed: int | None = None,
    ) -> collections.OrderedDict:
        """The computation's input for the `index`-th client; the other arguments are as in `evaluate`."""
        train, seed = self._data.train.examples(client), self._seed if seed is None else seed
        if most_examples is not None:
            places = first_of_permutation(
                len(train[1]), most_examples, seeds.generator(seed, "personalization_examples", client)
            )
            train = tuple(part[places] for part in train)
        return collections.OrderedDict(
            index=np.int32(index),
            seed=seeds.stateless(seed, "personalization", round_number, client),
            test=self._data.test.examples(client),
            train=train,
        )


def clients_of_a_call(most: int, release: str, strategies: int) -> int:
    """How many clients are evaluated in one call: fewer with many strategies, so that progress is shown in time.

    Args:
        most: the value of --clients_per_call.
        release: with "aggregates", each call releases sums, and these are not made of fewer clients.
        strategies: how many strategies each client is evaluated with, 1 or more.
    """
    return most if release == "aggregates" else max(min(most, _LEAST_OF_A_CALL), most // strategies)


def first_of_permutation(count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """The indices of the first `most` of `count` items in a random order, or of all if there are no more; ascending.

    With generators of the same seed, a smaller selection is part of a larger one, and a full one keeps the order.
    """
    return np.sort(rng.permutation(count)[:most])


def _chunks(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]
