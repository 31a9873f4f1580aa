"""The runs and rounds that are compared. None of it depends on test clients."""

import pandas as pd

from analysis import compared_runs, runs


def _with_validation(make_run, name, curve, **settings):
    directory = make_run(name, **settings)
    rows = [(r, "validation", "fine_tuning", e, a + 0.01 * e, 9, 0, 1) for r, a in curve.items() for e in (0, 5)]
    columns = ["round", "split", "strategy", "epoch", "accuracy_mean", "clients", "accuracy_q25", "accuracy_q75"]
    pd.DataFrame(rows, columns=columns).to_csv(directory / "evaluations.csv", index=False)
    return runs.read(directory)


def test_matched_rounds_lie_on_both_sides_of_the_last_initial_accuracy_on_validation_clients(make_run):
    reference = _with_validation(make_run, "a", {50: 0.2, 100: 0.61})
    other = _with_validation(make_run, "b", {10: 0.4, 20: 0.58, 30: 0.7, 40: 0.6, 50: 0.7})
    assert compared_runs.matched_rounds(other, reference) == [10, 20, 30, 40]
    early = _with_validation(make_run, "f", {10: 0.4, 20: 0.7, 30: 0.8, 40: 0.9})
    assert compared_runs.matched_rounds(early, reference) == [10, 20, 30]
    above = _with_validation(make_run, "d", {10: 0.7, 20: 0.8})
    assert compared_runs.matched_rounds(above, reference) == []
    unfinished = _with_validation(make_run, "e", {50: 0.2, 90: 0.61})
    assert compared_runs.matched_rounds(other, unfinished) == []
    assert compared_runs.matched_rounds(runs_without_validation(make_run), reference) == []


def test_a_run_has_converged_if_personalized_accuracy_hardly_changes_in_its_last_two_fifths(make_run):
    early = dict.fromkeys((20, 40, 60), 0.1)
    rises = _with_validation(make_run, "a", early | {70: 0.50, 80: 0.60, 90: 0.64, 100: 0.66})
    stays = _with_validation(make_run, "b", early | {70: 0.55, 80: 0.55, 90: 0.554, 100: 0.554})
    too_few = _with_validation(make_run, "c", {100: 0.9})
    assert compared_runs.still_changing([stays, too_few]) == ""
    assert compared_runs.still_changing([rises, stays]) == (
        "Still changing in the last two fifths of the rounds: a (+0.100)."
    )
    several = [_with_validation(make_run, f"r{rise}", early | {80: 0.5, 100: 0.5 + rise / 100}) for rise in range(1, 7)]
    assert compared_runs.still_changing(several).endswith(
        ": r6 (+0.060), r5 (+0.050), r4 (+0.040), r3 (+0.030) and 2 more."
    )


def test_accuracy_on_validation_clients_is_that_of_the_flags_learning_rate(make_run):
    rates = {0.005: 0.60, 0.02: 0.70, 0.08: 0.65}
    rows = [(rate, "fine_tuning", epoch, epoch and found) for rate, found in rates.items() for epoch in (0, 5)]
    for given, expected in ((0.02, 0.70), (0.08, 0.65), (0.3, 0.60)):
        flags = {"optimizers": {"personalization": {"name": "sgd", "learning_rate": given}}}
        directory = make_run(f"rate{given}", flags=flags)
        columns = ["learning_rate", "strategy", "epoch", "accuracy_mean"]
        pd.DataFrame(rows, columns=columns).to_csv(directory / "choice.csv", index=False)
        assert compared_runs.on_validation(runs.read(directory))["personalized"] == expected


def runs_without_validation(make_run):
    return runs.read(make_run("c"))
