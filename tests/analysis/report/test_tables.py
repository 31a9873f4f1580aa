"""The report's tables against the records they are made of."""

import io

import numpy as np
import pandas as pd
import pytest

from analysis import runs as runs_lib
from analysis import study as study_lib
from analysis.report import configurations, tables


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


def test_parts_of_the_update_are_those_of_the_last_round(found):
    tidy = tables.decomposition(configurations.of(found.experiments[0].runs)).tidy
    first = tidy[(tidy["configuration"] == "E 5") & (tidy["level"] == "cohort")]
    assert first["share"].tolist() == pytest.approx([0.3, 0.7 / 3, 0.7 / 3, 0.7 / 3])


def test_a_table_can_be_taken_away_in_three_forms(table_1):
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(table_1.csv)), table_1.tidy, check_dtype=False)
    assert table_1.markdown.startswith("| cohort | E |")
    assert r"\toprule" in table_1.latex


def test_every_finished_run_of_the_study_has_a_row(found):
    assert tables.all_runs(found).tidy["run"].tolist() == [
        *("runs/E5_seed1", "runs/E5_seed2", "runs/E10_seed1", "runs/E10_seed2"),
        *("runs/slow", "runs/fed_avg", "runs/two_stages", "runs/alone"),
    ]
