"""TensorBoard's view of a running experiment: numbers by round, and distributions over clients."""

import collections

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from tff_personalization.personalization import distributions
from tff_personalization.programs import client_evaluation


def histograms(directory):
    """Maps tag and round to the number of values and their least and greatest bin edges."""
    accumulator = event_accumulator.EventAccumulator(str(directory / "tensorboard"), {"tensors": 0})
    accumulator.Reload()
    found = collections.defaultdict(dict)
    for tag in accumulator.Tags()["tensors"]:
        for event in accumulator.Tensors(tag):
            bins = tensor_util.make_ndarray(event.tensor_proto)
            if tag.startswith("distribution/") and len(bins):
                found[tag][event.step] = (round(bins[:, 2].sum()), bins[0, 0], bins[-1, 1])
    return found


def test_a_run_leaves_distributions_of_its_cohorts_and_its_evaluated_clients(run):
    directory = run(rounds=2, rounds_per_evaluation=2, strategies=["fine_tune"])
    found = histograms(directory)
    assert set(found) == {
        f"distribution/{name}" for name in ("train_examples_of_cohort", "initial_accuracy", "personalized_accuracy")
    }
    metrics = pd.read_csv(directory / "metrics.csv")
    for round_number in (1, 2):
        count, least, most = found["distribution/train_examples_of_cohort"][round_number]
        assert count == 3
        assert 3 * least - 1e-3 <= metrics["examples"][round_number - 1] / 2 <= 3 * most + 1e-3  # of two local epochs
    for name in ("initial", "personalized"):
        ((round_number, (count, least, most)),) = found[f"distribution/{name}_accuracy"].items()
        assert (round_number, count) == (2, 4)
        assert least <= metrics[f"{name}_accuracy"][1] <= most


@pytest.mark.parametrize("release", ["records", "aggregates"])
def test_accuracies_are_those_of_clients_or_the_middles_of_the_released_bins(release):
    rows = [("a", 1, 4), ("b", 3, 4), ("c", 0, 0), ("d", 3, 4)]
    table = pd.DataFrame(rows, columns=["client", "correct", "test_predictions"])
    table = table.assign(accuracy=table.correct / table.test_predictions, strategy="fine_tune", epoch=0, loss=1.0)
    spread = {("fine_tune", 0): distributions.from_table(table, "fine_tune", 0, 5)}
    result = client_evaluation.EvaluationResult(spread, table if release == "records" else None, 1)
    expected = [0.25, 0.75, 0.75] if release == "records" else [0.3, 0.7, 0.7]
    np.testing.assert_allclose(np.sort(result.accuracies("fine_tune", 0)), expected)
