"""Claims: effects computed by hand from the records, verdicts by the interval, nothing chosen on test clients."""

import json
import pathlib

import numpy as np
import pandas as pd
import pytest

from analysis import claim_measures, claims, compared_runs, paper_claims, setting_measures, study
from tests.analysis.study_verdicts import give_validation_curve, judged
from tff_personalization.errors import UserError

TWO = [("FedAvg", {}, {"seed": seed}) for seed in (1, 2)] + [
    ("Personalized FedAvg", {}, {"seed": seed + 10}) for seed in (1, 2)
]


def _as_seed(directory, seed):
    """Gives a run that was drawn with another seed the seed of the runs to compare."""
    for name in ("config.json", "summary.json"):
        contents = json.loads((directory / name).read_text())
        contents["seed"] = seed
        (directory / name).write_text(json.dumps(contents))


@pytest.fixture
def fine_tuning(make_study):
    directory = make_study("fine_tuning", TWO)
    for number, seed in ((2, 1), (3, 2)):
        _as_seed(directory / "runs" / f"fine_tuning_{number}", seed)
    return directory


def _accuracy(directory, number, epoch, strategy="fine_tuning"):
    table = pd.read_csv(directory / "runs" / f"fine_tuning_{number}" / "clients.csv")
    table = table[(table.strategy == strategy) & (table.epoch == epoch) & (table.test_examples > 0)]
    return table.set_index("client").accuracy


def test_a_paired_effect_is_the_mean_over_seeds_of_differences_client_by_client(fine_tuning):
    for name, epoch in (("C2.1", 0), ("C2.2", 5)):
        by_seed = [
            _accuracy(fine_tuning, ours, epoch) - _accuracy(fine_tuning, theirs, epoch)
            for ours, theirs in ((2, 0), (3, 1))
        ]
        found = judged(fine_tuning, name)
        # Only clients that both runs have evaluated count.
        assert found["effect"] == pytest.approx(np.mean([values.dropna().mean() for values in by_seed]))
        assert found["low"] < found["effect"] < found["high"]
        assert found["seeds"] == 2
        assert found["synthetic"]
        assert len(found["runs"]) == 4


def _claim(values, name="X.1", **settings):
    """A claim with these values of one unit for each seed, without variation of clients."""
    measured = claim_measures.Measured([pd.Series({"a client": value}) for value in values])
    return paper_claims.Claim(name, "fine_tuning", "…", "…", lambda experiment, chosen: measured, **settings)


@pytest.fixture
def judge():
    """Gives verdicts on claims as one family."""
    experiment = study.Experiment("fine_tuning", "", ())
    return lambda *family: claims.judge(study.Study(pathlib.Path(), (experiment,)), family)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([0.02, 0.02, 0.021], claims.SUPPORTED),
        ([0.002, 0.002, 0.0021], claims.SUPPORTED),
        ([-0.05, -0.051, -0.05], claims.NOT_SUPPORTED),
        ([0.001, -0.001, 0.0, 0.002], claims.NO_DIFFERENCE),
        ([0.0, 0.0, 0.0], claims.NO_DIFFERENCE),
        ([-0.05, 0.05, 0.01], claims.UNDECIDED),
        ([0.01, 0.02, 0.06], claims.UNDECIDED),
        ([0.3, 0.3], claims.UNDECIDED),
        ([0.3], claims.UNDECIDED),
    ],
)
def test_the_verdict_is_where_the_interval_lies_and_two_seeds_decide_nothing(judge, values, word):
    (found,) = judge(_claim(values))
    assert found["verdict"] == word
    assert ("Fewer than 3 seeds" in found["why"]) == (len(values) < 3)
    assert found["low"] <= found["effect"] <= found["high"]


def test_margins_are_those_of_the_claims(judge):
    (narrow,), (wide,) = (judge(_claim([0.03, 0.031, 0.029, -0.02], margin=margin)) for margin in (0.01, 0.5))
    assert (narrow["verdict"], narrow["margin"]) == (claims.UNDECIDED, 0.01)
    assert (wide["verdict"], wide["margin"]) == (claims.NO_DIFFERENCE, 0.5)


def test_what_a_claim_decides_by_itself_may_not_hold_among_others(judge):
    sure, unsure, few = _claim([0.02, 0.021, 0.022], "X.1"), _claim([0.02, 0.028, 0.034], "X.2"), _claim([0.3], "X.3")
    (by_itself,) = judge(unsure)
    assert by_itself["verdict"] == claims.SUPPORTED
    several = judge(sure, unsure, few, *(_claim([-0.05, 0.05, 0.01], f"X.{number}") for number in range(4, 7)))
    assert [found["verdict"] for found in several[:3]] == [claims.SUPPORTED, claims.UNDECIDED, claims.UNDECIDED]
    assert several[1]["before_correction"] == claims.SUPPORTED
    assert several[1]["p"] == pytest.approx(4 * by_itself["p"])  # the second smallest of five with three seeds
    assert "but not after correction for 5 claims" in several[1]["why"]
    assert several[2]["p"] is None


def test_claims_of_other_parts_of_the_paper_and_synthetic_ones_are_corrected_by_themselves(judge):
    unsure = _claim([0.02, 0.028, 0.034], "X.1")
    (by_itself,) = judge(unsure)
    others = _claim([0.02, 0.021, 0.022], "Y.1"), _claim([0.02, 0.021, 0.022], "X.2", synthetic=True)
    assert judge(unsure, *others)[0]["p"] == by_itself["p"]


@pytest.mark.parametrize(("lacks", "named"), [([2], "Seed 2 is"), ([2, 3], "Seeds 2 and 3 are")])
def test_seeds_that_a_comparison_lacks_are_named_beside_the_verdict(make_study, lacks, named):
    seeds = [("FedAvg", {}, {"seed": seed}) for seed in (1, *lacks)]
    directory = make_study("fine_tuning", [*seeds, ("Personalized FedAvg", {}, {"seed": 11})])
    _as_seed(directory / "runs" / f"fine_tuning_{len(seeds)}", 1)
    found = judged(directory, "C2.1")
    assert found["seeds"] == 1
    assert f"{named} left out: no finished run of Personalized FedAvg." in found["why"]


def test_without_runs_there_is_no_effect_and_what_is_missing_is_named(make_study):
    directory = make_study("fine_tuning", TWO[:2])
    found = judged(directory, "C2.1")
    assert (found["verdict"], found["effect"], found["low"]) == (claims.NO_RUNS, None, None)
    assert "Personalized FedAvg" in found["why"]


def test_choosing_by_initial_accuracy_is_judged_by_models_that_validation_clients_chose(fine_tuning):
    experiment = study.read(fine_tuning).by_name["fine_tuning"]
    for entry, (initial, personalized) in zip(
        experiment.entries, [(0.7, 0.8), (0.7, 0.9), (0.8, 0.7), (0.6, 0.8)], strict=True
    ):
        rows = [
            (rate, "fine_tuning", epoch, accuracy - better)  # the second rate, better by 0.3, is not that of the flags
            for rate, better in ((0.02, 0), (0.08, 0.3))
            for epoch, accuracy in ((0, initial), (3, 0.99), (5, personalized))
        ]
        table = pd.DataFrame(rows, columns=["learning_rate", "strategy", "epoch", "accuracy_mean"])
        table.to_csv(entry.run.directory / "choice.csv", index=False)
        path = entry.run.directory / "summary.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"choice": {"strategy": "fine_tuning"}}))
    # Seed 1: run 2 is best by initial, run 0 by personalized accuracy; seed 2: run 1 by both.
    by_hand = (_accuracy(fine_tuning, 0, 5) - _accuracy(fine_tuning, 2, 5)).mean()
    found = judged(fine_tuning, "C2.3")
    measured = claim_measures.chosen_by_initial(study.read(fine_tuning).by_name["fine_tuning"], False)
    assert measured.values[1].to_numpy() == pytest.approx(0)
    assert found["effect"] == pytest.approx(by_hand / 2, abs=1e-9)


def test_the_spread_of_initial_accuracy_is_over_seeds_which_are_the_unit(make_study):
    settings = [({"clients_per_round": 5, "local_epochs": epochs}, seed) for epochs in (2, 5) for seed in range(1, 7)]
    directory = make_study("spread", [("", overrides, {"seed": seed}) for overrides, seed in settings])
    runs = [study.runs_lib.read(directory / "runs" / f"spread_{number}") for number in range(len(settings))]
    means = np.array(
        [[run.summary[f"{kind}_accuracy"]["mean"] for run in runs] for kind in ("initial", "personalized")]
    ).reshape(2, 2, 6)

    def spread(of):
        deviations = of.std(axis=2, ddof=1).mean(axis=1)
        return deviations[0] - deviations[1]

    others = [spread(np.delete(means, seed, axis=2)) for seed in range(6)]
    found = judged(directory, "T1.1")
    assert found["effect"] == pytest.approx(6 * spread(means) - 5 * np.mean(others))
    assert found["low"] < found["effect"] < found["high"]
    assert found["seeds"] == 6


def test_settings_that_lack_a_seed_are_left_out_of_the_spread_and_named(make_study):
    settings = [(5, 2, 1), (5, 2, 2), (5, 2, 3), (20, 2, 1)]
    runs = [("", {"clients_per_round": cohort, "local_epochs": e}, {"seed": seed}) for cohort, e, seed in settings]
    found = judged(make_study("spread", runs), "T1.1")
    assert found["why"].endswith("Left out, because not all 3 seeds have them: 20 clients with E = 2.")
    assert found["runs"] == ["spread_0", "spread_1", "spread_2"]


def test_three_seeds_do_not_decide_what_has_the_seed_as_its_unit(make_study):
    overrides = {"clients_per_round": 5, "local_epochs": 2}
    directory = make_study("spread", [("", overrides, {"seed": seed}) for seed in (1, 2, 3)])
    found = judged(directory, "T1.1")
    assert found["verdict"] == claims.UNDECIDED
    assert "Fewer than 6 seeds" in found["why"]


def test_more_examples_compares_the_halves_of_the_clients(make_study):
    directory = make_study("who_gains", [("Personalized FedAvg", {}, {})])
    gains = study.read(directory).by_name["who_gains"].entries[0].run.client_gains().sort_index()
    ordered = gains.sort_values("train_examples", kind="stable")["gain"].to_numpy()
    half = len(ordered) // 2
    assert judged(directory, "W.2")["effect"] == pytest.approx(ordered[-half:].mean() - ordered[:half].mean())


def test_rounds_saved_count_a_target_that_is_never_reached_as_all_rounds(make_study):
    directory = make_study("table1", [("", {"clients_per_round": 5, "local_epochs": 2}, {"target": 0.99})])
    path = directory / "runs" / "table1_0" / "summary.json"
    summary = json.loads(path.read_text())
    assert summary["rounds_to_target"]["initial"] is None
    summary["rounds_to_target"]["personalized"] = 70
    path.write_text(json.dumps(summary))
    assert judged(directory, "T1.3")["effect"] == pytest.approx((100 - 70) / 100)


def test_runs_in_which_neither_accuracy_reaches_the_target_are_left_out(make_study):
    overrides = [{"clients_per_round": 5, "local_epochs": epochs} for epochs in (2, 5)]
    directory = make_study("table1", [("", o, {"target": t}) for o, t in zip(overrides, (0.5, 2.0), strict=True)])
    measured = setting_measures.rounds_saved(study.read(directory).by_name["table1"], False)
    assert [len(values) for values in measured.values] == [1]
    assert "In 1 of 2 runs" in measured.note
    summary = directory / "runs" / "table1_0" / "summary.json"
    record = json.loads(summary.read_text())
    record["rounds_to_target"] |= {"initial": None, "personalized": None}
    summary.write_text(json.dumps(record))
    found = judged(directory, "T1.3")
    assert (found["verdict"], found["why"]) == (claims.NO_RUNS, "No run reached the target.")


def test_a_setting_of_several_seeds_is_one_unit_of_the_rounds_saved(make_study):
    cells = [(epochs, seed) for epochs in (2, 5) for seed in (1, 2)]
    overrides = [{"clients_per_round": 5, "local_epochs": epochs, "seed": seed} for epochs, seed in cells]
    settings = [{"seed": seed, "target": 0.5} for _, seed in cells]
    directory = make_study("table1", [("", *of) for of in zip(overrides, settings, strict=True)])
    first, second = setting_measures.rounds_saved(study.read(directory).by_name["table1"], False).values
    assert list(first.index) == list(second.index)
    assert len(first) == 2


def test_the_share_of_fomaml_is_compared_for_the_same_models(make_study):
    directory = make_study("terms", [("FedAvg", {"local_epochs": epochs}, {}) for epochs in (1, 3)])
    (tmp := directory / "runs" / "terms_0" / "decomposition.csv").write_text(
        pd.read_csv(tmp).assign(share=0.5).to_csv(index=False)
    )
    table = pd.read_csv(directory / "runs" / "terms_1" / "decomposition.csv")
    first = table[(table.level == "cohort") & (table.part == 0)].set_index(["epochs", "round"]).share
    assert judged(directory, "C1.1")["effect"] == pytest.approx((first[1] - first[3]).mean())


def test_of_several_runs_of_a_label_validation_clients_choose_one(fine_tuning):
    path = fine_tuning / "fine_tuning" / "experiment.json"
    record = json.loads(path.read_text())
    for entry in record["runs"]:
        entry["label"] = "Personalized FedAvg"
    path.write_text(json.dumps(record))
    experiment = study.read(fine_tuning).by_name["fine_tuning"]
    for entry, personalized in zip(experiment.entries, (0.7, 0.8, 0.75, 0.6), strict=True):
        rows = [(0.02, "fine_tuning", epoch, accuracy) for epoch, accuracy in ((0, 0.9), (5, personalized))]
        table = pd.DataFrame(rows, columns=["learning_rate", "strategy", "epoch", "accuracy_mean"])
        table.to_csv(entry.run.directory / "choice.csv", index=False)
    chosen = compared_runs.selected(experiment, "Personalized FedAvg")
    assert {seed: run.name for seed, run in chosen.items()} == {1: "fine_tuning_2", 2: "fine_tuning_1"}


def test_after_as_many_examples_the_other_run_is_taken_where_it_has_visited_them(fine_tuning):
    ours, theirs = (fine_tuning / "runs" / f"fine_tuning_{number}" for number in (2, 0))
    for place, per_round in ((ours, 80), (theirs, 100)):
        table = pd.read_csv(place / "metrics.csv").assign(examples=per_round)
        table.to_csv(place / "metrics.csv", index=False)
    give_validation_curve(theirs, {60: 0.5, 90: 0.6, 100: 0.7})  # 80 of its rounds have as many: 90 is the first
    assert judged(fine_tuning, "C2.5")["seeds"] == 0
    by_round = pd.read_csv(theirs / "clients.csv").assign(round=90, accuracy=lambda table: table.accuracy - 0.125)
    by_round.to_csv(theirs / "by_round.csv", index=False)
    found = judged(fine_tuning, "C2.5")
    assert found["seeds"] == 1
    difference = (_accuracy(fine_tuning, 2, 5) - (_accuracy(fine_tuning, 0, 5) - 0.125)).dropna()
    assert found["effect"] == pytest.approx(difference.mean())
    assert "FedAvg has visited up to 12% more examples." in found["why"]


def test_what_validation_clients_choose_is_compared_client_by_client(make_study):
    directory = make_study("centralized", [("FedAvg", {}, {}), ("pooled SGD", {}, {})])
    tables = []
    for number, epoch in ((0, 3), (1, 5)):
        place = directory / "runs" / f"centralized_{number}"
        table = pd.read_csv(place / "clients.csv")
        table = table[(table.strategy == "head_only") & table.epoch.isin([0, epoch])]
        table.to_csv(place / "chosen_clients.csv", index=False)
        tables.append(table[(table.epoch == epoch) & (table.test_examples > 0)].set_index("client").accuracy)
    found = judged(directory, "C3.5")
    assert found["effect"] == pytest.approx((tables[0] - tables[1]).mean())
    assert found["low"] is not None


def test_verdicts_are_written_whole_and_read_as_lines(fine_tuning):
    path = claims.write(fine_tuning)
    written = json.loads(path.read_text())["verdicts"]
    assert [v["id"] for v in written] == ["C2.1", "C2.2", "C2.3", "C2.4", "C2.5"]
    lines = claims.lines(written)
    assert "synthetic" in lines[0]
    assert list(fine_tuning.glob("*.temp")) == []


def test_a_folder_without_experiments_is_refused(make_run):
    with pytest.raises(UserError, match="no experiments in it"):
        claims.write(make_run("a").parent)
