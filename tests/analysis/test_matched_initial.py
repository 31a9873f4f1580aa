"""Claims about models at the same initial accuracy, which lies between two evaluated rounds."""

import pandas as pd
import pytest

from analysis import claims
from tests.analysis.study_verdicts import give_validation_curve, judged


@pytest.mark.parametrize("shift", [0.0, 0.2])
@pytest.mark.parametrize("seeds", [1, 2])
def test_at_the_same_initial_accuracy_the_other_model_lies_between_its_matched_rounds(make_study, shift, seeds):
    planned = [
        (label, {"seed": seed}, {"seed": seed}) for seed in range(1, seeds + 1) for label in ("FedAvg", "pooled SGD")
    ]
    directory = make_study("centralized", planned)
    reference, other = (directory / "runs" / f"centralized_{number}" for number in (0, 1))
    give_validation_curve(reference, {100: 0.6})
    give_validation_curve(other, {10: 0.5, 20: 0.7})
    if seeds == 2:  # the second seed's other model is always above the reference
        give_validation_curve(directory / "runs" / "centralized_2", {100: 0.4})
        give_validation_curve(directory / "runs" / "centralized_3", {10: 0.5, 20: 0.7})
    mine = pd.read_csv(reference / "clients.csv").assign(accuracy=lambda table: 0.4 + 0.2 * table.accuracy)
    mine.to_csv(reference / "clients.csv", index=False)
    mine = mine[(mine.strategy == "fine_tuning") & mine.epoch.isin([0, 5])]
    # A quarter of the way from round 10 to round 20 the mean initial accuracy is the reference's, unless shifted.
    by_round = [
        mine.assign(round=10, accuracy=mine.accuracy - 0.1 - shift - 0.02 * (mine.epoch == 5)),
        mine.assign(round=20, accuracy=mine.accuracy + 0.3 * (1 if not shift else -0.5) + 0.02 * (mine.epoch == 5)),
    ]
    pd.concat(by_round).to_csv(other / "by_round.csv", index=False)
    found = judged(directory, "C3.3")
    assert found["seeds"] == 1
    assert ("centralized_3: no evaluated rounds on both sides" in found["why"]) == (seeds == 2)
    if shift:
        assert found["verdict"] == claims.UNDECIDED
        assert "still differ by +0.150" in found["why"]
    else:
        assert found["effect"] == pytest.approx(0.02 * (0.75 - 0.25))
        assert "differ by 0.000 at most" in found["why"]


def test_the_same_initial_accuracy_is_found_in_rounds_that_validation_clients_do_not_point_to(make_study):
    directory = make_study("early_rounds", [("FedAvg", {}, {}), ("pooled Adam", {}, {})])
    reference, other = (directory / "runs" / f"early_rounds_{number}" for number in (0, 1))
    give_validation_curve(reference, {100: 0.4})
    give_validation_curve(other, {4: 0.5, 8: 0.6, 12: 0.7})  # above FedAvg's from the first round on
    mine = pd.read_csv(reference / "clients.csv").assign(accuracy=lambda table: 0.3 + 0.2 * table.accuracy)
    mine.to_csv(reference / "clients.csv", index=False)
    mine = mine[(mine.strategy == "fine_tuning") & mine.epoch.isin([0, 5])]
    shifts = {4: -0.2, 8: -0.1, 12: 0.1}  # halfway between the last two, the mean initial accuracy is FedAvg's
    by_round = [
        mine.assign(round=number, accuracy=mine.accuracy + shift - 0.04 * (mine.epoch == 5))
        for number, shift in shifts.items()
    ]
    pd.concat(by_round).to_csv(other / "by_round.csv", index=False)
    found = judged(directory, "X.1")
    assert found["seeds"] == 1
    assert found["effect"] == pytest.approx(0.04)
    assert "differ by 0.000 at most" in found["why"]
