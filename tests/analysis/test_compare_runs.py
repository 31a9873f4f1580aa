"""The comparison table: its values in every format, and the mean over seeds."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest

from analysis import compare_methods, compare_runs, costs, tables
from analysis import runs as runs_lib
from tff_personalization.errors import UserError

INITIAL, PERSONALIZED = (0.5, 0.6, 0.85), (0.8, 0.82, 0.87)


@pytest.fixture
def three_seeds(make_run):
    """Runs of seeds 1 to 3 whose summaries hold round numbers."""
    directories = []
    for seed, initial, personalized, rounds in zip((1, 2, 3), INITIAL, PERSONALIZED, (None, 100, 60), strict=True):
        directory = make_run(f"run_{seed}", seed=seed)
        summary = json.loads((directory / "summary.json").read_text())
        summary["initial_accuracy"] |= {"mean": initial, "sd": 0.1}
        summary["personalized_accuracy"] |= {"mean": personalized, "sd": 0.05}
        summary["gain"]["mean"] = personalized - initial
        summary["share_hurt"] = 0.125
        summary["rounds_to_target"] = {"target_accuracy": 0.8, "initial": rounds, "personalized": 30 + seed}
        (directory / "summary.json").write_text(json.dumps(summary))
        directories.append(directory)
    return runs_lib.read_all(directories)


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(separator)]


def test_csv_has_every_number_unrounded(three_seeds):
    rows = list(csv.DictReader(io.StringIO(compare_runs.render(compare_runs.per_run(three_seeds), "csv"))))
    assert [row["run"] for row in rows] == ["run_1", "run_2", "run_3"]
    assert [row["seed"] for row in rows] == ["1", "2", "3"]
    assert [float(row["initial_accuracy_mean"]) for row in rows] == list(INITIAL)
    assert [float(row["personalized_accuracy_mean"]) for row in rows] == list(PERSONALIZED)
    assert [float(row["gain_mean"]) for row in rows] == [b - a for a, b in zip(INITIAL, PERSONALIZED, strict=True)]
    assert [row["rounds_to_target_initial"] for row in rows] == ["", "100.0", "60.0"]
    assert [float(row["examples_per_second"]) for row in rows] == [1010, 1020, 1030]
    assert [float(row["wall_seconds"]) for row in rows] == [701, 702, 703]
    assert {row["data"] for row in rows} == {"emnist62, synthetic handwriting, 120 writers, heterogeneity 1"}


@pytest.mark.parametrize(
    ("form", "separator", "plus_minus", "missing", "underscore", "row"),
    [
        ("text", "  ", "±", "–", "_", 1),
        ("markdown", "|", "±", "–", "_", 2),
        ("latex", "&", r"$\pm$", "--", r"\_", 5),
    ],
)
def test_readable_formats_hold_the_same_rounded_values(
    three_seeds, form, separator, plus_minus, missing, underscore, row
):
    content = compare_runs.render(compare_runs.per_run(three_seeds[:1]), form)
    cells = [cell.removesuffix(r"\\").strip() for cell in _cells(content.splitlines()[row], separator) if cell]
    assert cells == [
        *(f"run{underscore}1", "Personalized FedAvg"),
        *("62 characters, synthetic handwriting, 120 writers, heterogeneity 1", "1", "100", "70"),
        *(f"0.5000 {plus_minus} 0.1000", f"0.8000 {plus_minus} 0.0500", "+0.3000", "0.125"),
        *("0.8", missing, "31", "1010", "701"),
    ]
    assert "standard deviation over test clients" in content


def test_over_seeds_gives_mean_and_standard_deviation(three_seeds):
    table = compare_runs.over_seeds(three_seeds)
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["run"], row["seed"], row["seeds"]) == ("run_1 + 2 more", "1, 2, 3", 3)
    assert row["initial_accuracy_mean"] == pytest.approx(0.65)
    # Deviations -0.15, -0.05, 0.2 over 3 - 1.
    assert row["initial_accuracy_mean_sd_over_seeds"] == pytest.approx(np.sqrt((0.0225 + 0.0025 + 0.04) / 2))
    assert (row["rounds_to_target_initial"], row["rounds_to_target_initial_reached"]) == (80, 2)
    content = compare_runs.render(table, "text")
    cells = ("0.6500 (0.1803)", "0.8300 (0.0361)", "80.0 (28.3), 2 of 3 seeds", "32.0 (1.0)", "1020 (10)", "702 (1)")
    assert [cell for cell in cells if cell not in content] == []


def test_over_seeds_keeps_runs_with_other_settings_apart(make_run):
    runs = [make_run("a", seed=1), make_run("b", seed=2, flags={"local_epochs": 5}), make_run("c", seed=3)]
    table = compare_runs.over_seeds(runs_lib.read_all(runs))
    assert table["seed"].tolist() == ["1, 3", "2"]
    assert np.isnan(table["initial_accuracy_mean_sd_over_seeds"][1])


def test_over_seeds_passes_over_flags_that_change_no_number(make_run):
    runs = [make_run("a", seed=1, flags={"cores": 1, "output_dir": "x"}), make_run("b", seed=2, flags={"cores": 2})]
    assert compare_runs.over_seeds(runs_lib.read_all(runs))["seed"].tolist() == ["1, 2"]


def test_over_seeds_refuses_to_count_a_result_twice(make_run):
    runs = runs_lib.read_all([make_run("a"), make_run("b", seed=2), make_run("copy")])
    with pytest.raises(UserError, match=r"/a and .*/copy: the same settings and seed; give one"):
        compare_runs.over_seeds(runs)


def test_special_characters_are_escaped(make_run):
    table = compare_runs.per_run([runs_lib.read(make_run("50%_a&b", source="synthetic | 100% ~ x^2 {y}"))])
    assert r"50\%\_a\&b" in compare_runs.render(table, "latex")
    assert r"100\% \textasciitilde{} x\textasciicircum{}2 \{y\}" in compare_runs.render(table, "latex")
    assert r"synthetic \| 100%" in compare_runs.render(table, "markdown")


def test_an_unfinished_run_cannot_be_compared(make_run):
    with pytest.raises(UserError, match="unfinished run"):
        compare_runs.per_run(runs_lib.read_all([make_run(finished=False)]))


def test_runs_whose_data_was_in_another_folder_differ_only_in_their_seed(make_run):
    flags = [{"client_data": place} for place in ("/here/writers.npz", "C:\\there\\writers.npz", "/here/others.npz")]
    read = [runs_lib.read(make_run(f"run_{seed}", seed=seed, flags=of)) for seed, of in enumerate(flags)]
    assert [[*group] for group in compare_runs.by_settings(read).values()] == [[0, 1], [2]]
    assert compare_runs.over_seeds(read)["seeds"].tolist() == [2, 1]


def test_the_wall_time_of_a_row_is_that_of_the_runs_that_reused_no_rounds(make_run):
    made = [make_run(f"run_{seed}", seed=seed) for seed in (1, 2)]
    table = compare_methods.compare(runs_lib.read_all(made))
    assert table["wall_seconds"][0] == 701.5
    for directory, expected in zip(made, (702, None), strict=True):
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps({**config, "rounds_taken_over": {"rounds": 3}}))
        table = compare_methods.compare(runs_lib.read_all(made))
        text = compare_methods.render(table, "markdown")
        assert table["wall_seconds"][0] == expected or table["wall_seconds"].isna().all()
        assert f"| {expected or tables.MISSING} |" in text
        assert costs.WALL_TIME_NOTE in text


def test_examples_are_missing_if_the_rounds_have_none_on_record_and_zero_without_rounds(make_run):
    without, untrained = make_run("a", method="fed_avg"), make_run("b", method="local_only")
    path = without / "metrics.csv"
    pd.read_csv(path).drop(columns="examples").to_csv(path, index=False)
    (untrained / "metrics.csv").unlink()
    path = untrained / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rounds": 0}))
    table = compare_methods.compare(runs_lib.read_all([without, untrained])).drop_duplicates("method")
    assert table["examples"].tolist() == pytest.approx([np.nan, 0], nan_ok=True)
    shown = compare_methods.render(table, "markdown")
    assert "| – | – |" in shown
    assert "| 0.00 M | 0.00 M |" in shown
    assert "nan M" not in shown
