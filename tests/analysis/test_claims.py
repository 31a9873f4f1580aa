"""Claims: effects by hand from the records, verdicts by where the interval lies, nothing chosen on test clients."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis import claim_measures, claims, study

CLAIMS = {claim.id: claim for claim in claims.CLAIMS}
TWO = [("FedAvg", {}, {"seed": seed}) for seed in (1, 2)] + [
    ("Personalized FedAvg", {}, {"seed": seed + 10}) for seed in (1, 2)
]


def _as_seed(directory, seed):
    """Gives a run that was drawn with another seed the seed of those that it is compared with."""
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


def _judge(directory, name):
    return claims.verdict(study.read(directory).by_name[CLAIMS[name].experiment], CLAIMS[name])


def test_a_paired_effect_is_the_mean_over_seeds_of_differences_client_by_client(fine_tuning):
    for name, epoch in (("C2.1", 0), ("C2.2", 5)):
        by_seed = [
            _accuracy(fine_tuning, ours, epoch) - _accuracy(fine_tuning, theirs, epoch)
            for ours, theirs in ((2, 0), (3, 1))
        ]
        found = _judge(fine_tuning, name)
        # Only clients that both have judged count.
        assert found["effect"] == pytest.approx(np.mean([values.dropna().mean() for values in by_seed]))
        assert found["low"] < found["effect"] < found["high"]
        assert found["seeds"] == 2
        assert found["synthetic"]
        assert len(found["runs"]) == 4


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([0.01, 0.02, 0.03], claims.SUPPORTED),
        ([-0.01, -0.02, -0.03], claims.NOT_SUPPORTED),
        ([0.001, -0.001, 0.0, 0.002], claims.NOT_SUPPORTED),
        ([0.0, 0.0, 0.0], claims.NOT_SUPPORTED),
        ([-0.05, 0.05, 0.01], claims.UNDECIDED),
        ([0.3, 0.3], claims.UNDECIDED),
    ],
)
def test_the_verdict_is_where_the_interval_lies(make_study, values, word):
    experiment = study.read(make_study("fine_tuning", TWO[:1])).by_name["fine_tuning"]
    measured = claim_measures.Measured([np.array(values)], (experiment.entries[0].run,))
    claim = claims.Claim("X.1", "fine_tuning", "…", "…", "client", lambda experiment, chosen: measured)
    found = claims.verdict(experiment, claim)
    assert found["verdict"] == word
    assert "One seed" in found["why"] or (len(values) < 3 and found["low"] is None)


def test_without_runs_there_is_no_effect_and_what_is_missing_is_said(make_study):
    directory = make_study("fine_tuning", TWO[:2])
    found = _judge(directory, "C2.1")
    assert (found["verdict"], found["effect"], found["low"]) == (claims.NO_RUNS, None, None)
    assert "Personalized FedAvg" in found["why"]


def test_choosing_by_initial_accuracy_is_judged_by_models_that_validation_clients_chose(fine_tuning):
    experiment = study.read(fine_tuning).by_name["fine_tuning"]
    for entry, (initial, personalized) in zip(
        experiment.entries, [(0.7, 0.8), (0.7, 0.9), (0.8, 0.7), (0.6, 0.8)], strict=True
    ):
        rows = [(100, "validation", "fine_tuning", 0, initial), (100, "validation", "fine_tuning", 5, personalized)]
        table = pd.DataFrame(rows, columns=["round", "split", "strategy", "epoch", "accuracy_mean"])
        path = entry.run.directory / "evaluations.csv"
        pd.concat([pd.read_csv(path), table.assign(clients=9, accuracy_q25=0.5, accuracy_q75=0.9)]).to_csv(
            path, index=False
        )
    # Seed 1: run 2 is best by initial, run 0 by personalized accuracy; seed 2: run 1 by both.
    by_hand = (_accuracy(fine_tuning, 0, 5) - _accuracy(fine_tuning, 2, 5)).mean()
    found = _judge(fine_tuning, "C2.3")
    measured = claim_measures.chosen_by_initial(study.read(fine_tuning).by_name["fine_tuning"], False)
    assert measured.values[1] == pytest.approx(0)
    assert found["effect"] == pytest.approx(by_hand / 2, abs=1e-9)


def test_the_spread_of_initial_accuracy_is_over_seeds_setting_by_setting(make_study):
    overrides = [{"clients_per_round": 5, "local_epochs": epochs} for epochs in (2, 5) for _ in range(2)]
    directory = make_study("table1", [("", o, {"seed": seed}) for o, seed in zip(overrides, (1, 2, 1, 2), strict=True)])
    summaries = [json.loads(path.read_text()) for path in sorted(directory.glob("runs/*/summary.json"))]
    means = np.array([[s[f"{kind}_accuracy"]["mean"] for s in summaries] for kind in ("initial", "personalized")])
    deviations = means.reshape(2, 2, 2).std(axis=2, ddof=1)
    found = _judge(directory, "T1.1")
    assert found["effect"] == pytest.approx((deviations[0] - deviations[1]).mean())
    assert found["seeds"] == 2


def test_more_examples_compares_the_halves_of_the_clients(make_study):
    directory = make_study("who_gains", [("Personalized FedAvg", {}, {})])
    gains = study.read(directory).by_name["who_gains"].entries[0].run.client_gains().sort_index()
    ordered = gains.sort_values("train_examples", kind="stable")["gain"].to_numpy()
    half = len(ordered) // 2
    assert _judge(directory, "W.2")["effect"] == pytest.approx(ordered[-half:].mean() - ordered[:half].mean())


def test_rounds_saved_count_a_target_that_is_never_reached_as_all_rounds(make_study):
    directory = make_study("table1", [("", {"clients_per_round": 5, "local_epochs": 2}, {"target": 0.99})])
    summary = json.loads((directory / "runs" / "table1_0" / "summary.json").read_text())
    reached = summary["rounds_to_target"]
    by_hand = ((reached["initial"] or 100) - (reached["personalized"] or 100)) / 100
    assert reached["initial"] is None
    assert _judge(directory, "T1.3")["effect"] == pytest.approx(by_hand)


def test_the_round_of_matched_initial_accuracy_is_the_nearest_on_validation_clients(make_run):
    def run(name, curve):
        directory = make_run(name)
        rows = [(r, "validation", "fine_tuning", e, a + 0.1 * e, 9, 0, 1) for r, a in curve.items() for e in (0, 5)]
        columns = ["round", "split", "strategy", "epoch", "accuracy_mean", "clients", "accuracy_q25", "accuracy_q75"]
        pd.DataFrame(rows, columns=columns).to_csv(directory / "evaluations.csv", index=False)
        return claims.study.runs_lib.read(directory)

    reference, other = run("a", {10: 0.2, 20: 0.61}), run("b", {10: 0.4, 20: 0.58, 30: 0.7})
    assert claim_measures.matched_round(other, reference) == 20
    assert claim_measures.matched_round(runs_without_validation(make_run), reference) is None


def runs_without_validation(make_run):
    return claims.study.runs_lib.read(make_run("c"))


def test_verdicts_are_written_whole_and_read_as_lines(fine_tuning):
    path = claims.write(fine_tuning)
    written = json.loads(path.read_text())["verdicts"]
    assert [v["id"] for v in written] == ["C2.1", "C2.2", "C2.3"]
    lines = claims.lines(written)
    assert "synthetic" in lines[0]
    assert list(fine_tuning.glob("*.temp")) == []
