"""The report's tables against their records."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from analysis import runs as runs_lib
from analysis import study as study_lib
from analysis.report import client_tables, configurations, tables


@pytest.fixture
def found(study):
    return study_lib.read(study)


@pytest.fixture
def table_1(found):
    return tables.table_1(configurations.of(found.experiments[0].runs))


def test_table_1_has_the_papers_numbers_beside_those_of_the_runs(table_1, found):
    assert table_1.cells[["cohort", "E"]].to_numpy().tolist() == [["20", "5"], ["20", "10"]]
    row = table_1.cells.iloc[1]
    assert row["paper: initial"] == "0.8480 (0.0036)"
    assert row["paper: personalized"] == "0.9032 (0.0017)"
    assert row["paper: round to 0.8, initial"] == "68.7"
    assert row["paper: round to 0.8, personalized"] == "25"
    means = [run.summary["initial_accuracy"]["mean"] for run in found.runs if run.name.startswith("E10")]
    assert row["initial accuracy"] == f"{np.mean(means):.4f} ({np.std(means, ddof=1):.4f})"
    assert "synthetic handwriting" in table_1.note


def test_table_1_of_other_settings_is_not_made(found):
    with pytest.raises(runs_lib.NotRecordedError, match="Table 1"):
        tables.table_1(configurations.of(found.experiments[2].runs))


def test_a_target_says_how_many_seeds_reach_it_and_sorts_last_if_none_does():
    show = tables.rounds_to_target("initial")
    row = {"rounds_to_target_initial": 30.0, "rounds_to_target_initial_seeds": 1, "seeds": 2}
    assert show(row) == ("30.0 (1 of 2 seeds)", 30.0)
    assert show({**row, "seeds": 1}) == ("30.0", 30.0)
    assert show({**row, "rounds_to_target_initial": np.nan, "rounds_to_target_initial_seeds": 0}) == (
        "not reached",
        np.inf,
    )


def test_ranks_are_of_the_means_and_tau_counts_pairs_in_the_same_order(found):
    made = tables.ranking(configurations.of(found.experiments[1].runs))
    tidy = made.tidy
    assert tidy["rank_personalized"].tolist() == [1, 2, 3]
    assert tidy["personalized_accuracy"].is_monotonic_decreasing
    values = tidy[["initial_accuracy", "personalized_accuracy"]].to_numpy()
    signs = [np.prod(np.sign(values[i] - values[j])) for i in range(3) for j in range(i)]
    assert f"{np.mean(signs):.2f} (" in made.note
    assert r"Kendall's $\tau$ between" in made.latex  # LaTeX has no τ in its text fonts


def test_parts_of_the_update_are_those_of_the_last_round(found):
    tidy = tables.decomposition(configurations.of(found.experiments[0].runs)).tidy
    first = tidy[(tidy["configuration"] == "E 5") & (tidy["level"] == "cohort")]
    assert first["share"].tolist() == pytest.approx([0.3, 0.7 / 3, 0.7 / 3, 0.7 / 3])


def test_quarters_of_clients_by_examples_are_those_of_all_runs(found):
    made = configurations.of(found.experiments[0].runs)
    tidy = client_tables.by_examples(made).tidy
    pooled = pd.concat(
        [run.client_gains().assign(label=c.label, seed=run.config["seed"]) for c in made for run in c.runs]
    )
    edges = sorted(set(np.quantile(pooled["train_examples"], [0.25, 0.5, 0.75])))
    pooled["quarter"] = np.searchsorted(edges, pooled["train_examples"])
    assert tidy["clients"].sum() == pytest.approx(sum(len(c.runs[0].client_gains()) for c in made))
    for _, row in tidy.iterrows():
        inside = pooled[(pooled["label"] == row["configuration"]) & (pooled["quarter"] == row["group"])]
        means = inside.groupby("seed")["personalized"].mean()
        assert row["personalized_accuracy"] == pytest.approx(means.mean())
        assert row["personalized_accuracy_sd"] == pytest.approx(means.std(ddof=1), nan_ok=True)
        assert row["train_examples_max"] == inside["train_examples"].max()
        assert row["gain"] == pytest.approx(row["personalized_accuracy"] - row["initial_accuracy"])


def test_clients_of_one_size_are_not_grouped(found, monkeypatch):
    same = pd.DataFrame({"initial": [0.5], "personalized": [0.6], "gain": [0.1], "train_examples": [40]})
    monkeypatch.setattr(runs_lib.Run, "client_gains", lambda run: same)
    with pytest.raises(runs_lib.NotRecordedError, match="same number"):
        client_tables.by_examples(configurations.of(found.experiments[0].runs))


def test_a_table_can_be_taken_away_in_three_forms(table_1):
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(table_1.csv)), table_1.tidy, check_dtype=False)
    assert table_1.markdown.startswith("| cohort | E |")
    assert r"\toprule" in table_1.latex


def test_every_finished_run_of_the_study_has_a_row(found):
    tidy = tables.all_runs(found).tidy
    assert tidy["run"].tolist() == [found.key(run) for run in found.runs]
    assert tidy["experiments"][0].startswith("table1: E ")


def test_strategies_are_over_seeds_and_need_more_than_one(make_run, found):
    runs = []
    for seed, (tuned, head) in enumerate([(0.8, 0.6), (0.9, 0.7)], start=1):
        directory = make_run(f"seed{seed}", seed=seed)
        summary = json.loads((directory / "summary.json").read_text())
        strategies = {
            name: {"personalized_accuracy": {"mean": mean}, "gain": {"mean": mean - 0.5}, "share_hurt": 0.1}
            for name, mean in (("fine_tune", tuned), ("fine_tune_head", head))
        }
        (directory / "summary.json").write_text(json.dumps(summary | {"strategies": strategies}))
        runs.append(runs_lib.read(directory))
    made = client_tables.strategies(configurations.of(runs))
    assert made.cells["strategy"].tolist() == ["fine-tuning", "fine-tuning, last layer"]
    assert made.cells["personalized accuracy"].tolist() == ["0.8500 (0.0707)", "0.6500 (0.0707)"]
    with pytest.raises(runs_lib.NotRecordedError, match="one strategy"):
        client_tables.strategies(configurations.of(found.runs[:1]))


def test_participants_have_a_table_where_they_were_judged(make_run, found):
    with pytest.raises(runs_lib.NotRecordedError, match="--participants"):
        client_tables.participants(configurations.of(found.runs[:1]))
    directory = make_run("with_participants", seed=1)
    summary = json.loads((directory / "summary.json").read_text())
    figures = {"personalized_accuracy": {"mean": 0.9}, "gain": {"mean": 0.2}, "share_hurt": 0.25}
    summary["participants"] = {"strategies": {"fine_tune": figures, "kept": figures}}
    (directory / "summary.json").write_text(json.dumps(summary))
    made = client_tables.participants(configurations.of([runs_lib.read(directory)]))
    assert made.cells["strategy"].tolist() == ["fine-tuning", "own model"]
    assert made.cells["personalized accuracy"].tolist() == ["0.9000"] * 2


def test_what_is_chosen_is_counted_over_seeds(make_run, found):
    runs = []
    for seed, (epoch, mean) in enumerate([(5, 0.8), (5, 0.9), (0, 0.7)], start=1):
        directory = make_run(f"seed{seed}", seed=seed)
        summary = json.loads((directory / "summary.json").read_text())
        choice = {
            "strategy": "fine_tune",
            "epoch": epoch,
            "learning_rate": 0.02,
            "personalized_accuracy": {"mean": mean},
        }
        (directory / "summary.json").write_text(json.dumps(summary | {"choice": choice}))
        runs.append(runs_lib.read(directory))
    (cells,) = client_tables.choices(configurations.of(runs)).cells.to_dict("records")
    assert cells["personalized accuracy, as chosen"] == "0.8000 (0.1000)"
    assert cells["chosen"] == "fine-tuning, epoch 5, rate 0.02 (2×); fine-tuning, epoch 0, rate 0.02"
    with pytest.raises(runs_lib.NotRecordedError, match="validation"):
        client_tables.choices(configurations.of(found.runs[:1]))
