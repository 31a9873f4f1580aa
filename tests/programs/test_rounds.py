"""The state from round to round."""

import types

import numpy as np
import pandas as pd
import pytest

from tff_personalization import metrics
from tff_personalization.programs import rounds

CONFIG = types.SimpleNamespace(strategies=["fine_tune", "ditto"], personalization_epochs=2)


def _evaluation(round_number, accuracy, split="validation"):
    rows = [
        (round_number, split, strategy, epoch, accuracy if (strategy, epoch) == ("fine_tune", 2) else 0.99)
        for strategy in ("fine_tune", "ditto")
        for epoch in (0, 1, 2)
    ]
    return pd.DataFrame(rows, columns=["round", "split", "strategy", "epoch", "accuracy_mean"])


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ([0.1, 0.3, 0.2], 2),
        ([0.3, 0.3], 1),
        ([np.nan, 0.0], 2),
        ([np.nan], None),
        ([0.3, np.nan, 0.30000000000000004], 3),
    ],
)
@pytest.mark.parametrize("metric", [metrics.ACCURACY, metrics.Metric("error rate", False, 1.0)])
def test_the_best_round_is_the_first_of_the_best_accuracy_of_the_main_strategy(accuracies, best, metric):
    accuracies, found = [metric.gain(0, accuracy) for accuracy in accuracies], None
    for number, accuracy in enumerate(accuracies, start=1):
        found = rounds._better(found, _evaluation(number, accuracy), CONFIG, metric)
    assert (None if found is None else found.round_number) == best
    assert rounds._better(found, _evaluation(9, 1.0, split="test_sample"), CONFIG, metric) == found
    # as a resumed run finds it in its records
    table = pd.concat([_evaluation(number, accuracy) for number, accuracy in enumerate(accuracies, start=1)])
    assert rounds.saved_models.best_on_validation(table.reset_index(drop=True), "fine_tune", 2, metric) == found


def test_a_checkpoint_holds_what_the_records_do_not():
    state = rounds.State("weights", 3, 1.5, 0.5, 40, 9.0, best=None, accuracies=((0.1, 0.2),))
    assert list(state.as_program_state().items()) == [
        ("learning", "weights"),
        ("round_number", 3),
        ("train_seconds", 1.5),
        ("evaluation_seconds", 0.5),
        ("examples", 40),
        ("expected_seconds", 9.0),
    ]
