"""Distributions of accuracy over clients, before and after personalization, from records or from aggregates.

If the task has another metric, it takes the place of accuracy, and a gain is positive if it becomes better.
A client without test examples counts in no average. A share is a fraction of the clients that count. Standard
deviations are over these clients, in population form, so that records and aggregates agree.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tff_personalization import metrics

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def client_table(records: Sequence[Mapping], client_ids: Sequence[str], strategies: Sequence[str]) -> pd.DataFrame:
    """One row per client × strategy × epoch from the `records` release of the evaluation.

    Args:
        records: the measurements of each client; see `evaluation.build_personalization_evaluation`.
        client_ids: the clients, by the `index` of the records.
        strategies: the names of the S rows of `correct` and `loss_sum`.

    Returns:
        Columns client, strategy, epoch, accuracy, loss (of a prediction, in nats; both NaN for a client without test
        examples), train_examples, test_examples, test_predictions, correct; ordered by client index, strategy, epoch.
        Accuracy is `correct` / `test_predictions`, the share of right predictions or the mean score; there is one
        prediction for each test example, unless the task says otherwise.
    """
    rows = []
    for record in sorted(records, key=lambda record: int(record["index"])):
        predictions = int(record["test_predictions"])
        correct, loss_sum = np.asarray(record["correct"]), np.asarray(record["loss_sum"])
        for s, strategy in enumerate(strategies):
            for epoch in range(correct.shape[1]):
                rows.append(
                    (
                        client_ids[int(record["index"])],
                        strategy,
                        epoch,
                        correct[s, epoch] / predictions if predictions else np.nan,
                        float(loss_sum[s, epoch]) / predictions if predictions else np.nan,
                        int(record["train_examples"]),
                        int(record["test_examples"]),
                        predictions,
                        correct[s, epoch].item(),
                    )
                )
    columns = "client strategy epoch accuracy loss train_examples test_examples test_predictions correct"
    return pd.DataFrame(rows, columns=columns.split())


@dataclasses.dataclass(frozen=True)
class AccuracyDistribution:
    """The distribution of accuracy over clients for one strategy at one epoch, and its change from epoch 0."""

    clients: int
    mean: float
    weighted_mean: float
    sd: float
    quantiles: Mapping[float, float]
    loss: float
    gain: float
    gain_sd: float
    share_gaining: float
    share_hurt: float
    histogram: np.ndarray

    @property
    def share_unchanged(self) -> float:
        return 1 - self.share_gaining - self.share_hurt


def from_table(
    table: pd.DataFrame, strategy: str, epoch: int, bins: int, metric: metrics.Metric = metrics.ACCURACY
) -> AccuracyDistribution:
    """The distribution for `strategy` at `epoch` from a `client_table`; quantiles are exact."""
    rows = table[(table.strategy == strategy) & (table.test_predictions > 0)]
    after, before = rows[rows.epoch == epoch], rows[rows.epoch == 0]
    accuracy = after.accuracy.to_numpy()
    gain = metric.gain(before.accuracy.to_numpy(), accuracy)
    n, clients = after.test_predictions.to_numpy(), len(after)
    correct = after.correct.to_numpy()
    if metric.is_share:
        cells = correct * bins // np.maximum(n, 1)
    else:  # in single precision, as `evaluation.client_sums`
        cells = (correct.astype(np.float32) / n.astype(np.float32) / np.float32(metric.upper) * bins).astype(int)
    cells = np.minimum(cells, bins - 1)
    if not clients:
        return _empty(bins)
    return AccuracyDistribution(
        clients=clients,
        mean=float(accuracy.mean()),
        weighted_mean=float(correct.sum() / n.sum()),
        sd=float(accuracy.std()),
        quantiles={q: float(np.quantile(accuracy, q)) for q in QUANTILES},
        loss=float(after.loss.mean()),
        gain=float(gain.mean()),
        gain_sd=float(gain.std()),
        share_gaining=float((gain > 0).mean()),
        share_hurt=float((gain < 0).mean()),
        histogram=np.bincount(cells, minlength=bins),
    )


def from_sums(
    sums: Mapping, strategy: int, epoch: int, metric: metrics.Metric = metrics.ACCURACY
) -> AccuracyDistribution:
    """The same from the `aggregates` release, `evaluation.client_sums` summed over clients.

    Quantiles come from the histogram, so their error is at most the width of a bin.
    """
    clients = int(sums["clients"])
    histogram = np.asarray(sums["histogram"])[strategy, epoch]
    if not clients:
        return _empty(len(histogram))

    def mean(name: str) -> float:
        return float(np.asarray(sums[name])[strategy, epoch]) / clients

    return AccuracyDistribution(
        clients=clients,
        mean=mean("accuracy"),
        weighted_mean=float(np.asarray(sums["correct"])[strategy, epoch] / int(sums["test_predictions"])),
        sd=float(np.sqrt(max(0.0, mean("accuracy_squared") - mean("accuracy") ** 2))),
        quantiles={q: metric.upper * quantile_of_histogram(histogram, q) for q in QUANTILES},
        loss=mean("loss"),
        gain=mean("gain"),
        gain_sd=float(np.sqrt(max(0.0, mean("gain_squared") - mean("gain") ** 2))),
        share_gaining=mean("gaining"),
        share_hurt=mean("hurt"),
        histogram=histogram,
    )


def quantile_of_histogram(histogram: np.ndarray, quantile: float) -> float:
    """The value in [0, 1] below which a share `quantile` of the histogram's counts lies.

    Args:
        histogram: counts in bins of equal width over [0, 1], shape (bins,), at least one of them positive.
        quantile: in [0, 1].

    Returns:
        Linear interpolation of the cumulative counts between the edges of the bins.
    """
    cumulative = np.concatenate([[0], np.cumsum(histogram)]) / histogram.sum()
    edges = np.linspace(0, 1, len(histogram) + 1)
    # Only edges where the cumulative share rises: the others would make the interpolation ambiguous.
    rises = np.flatnonzero(np.diff(cumulative) > 0)
    below = int(np.searchsorted(cumulative[rises + 1], quantile))
    cell = int(rises[min(below, len(rises) - 1)])
    return float(np.interp(quantile, cumulative[cell : cell + 2], edges[cell : cell + 2]))


def _empty(bins: int) -> AccuracyDistribution:
    nan = float("nan")
    return AccuracyDistribution(
        clients=0,
        mean=nan,
        weighted_mean=nan,
        sd=nan,
        quantiles=dict.fromkeys(QUANTILES, nan),
        loss=nan,
        gain=nan,
        gain_sd=nan,
        share_gaining=nan,
        share_hurt=nan,
        histogram=np.zeros(bins, int),
    )
