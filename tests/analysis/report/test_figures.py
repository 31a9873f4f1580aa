"""The interactive figures against the records they are drawn from."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from analysis import compare_methods, learning_curves
from analysis import runs as runs_lib
from analysis import study as study_lib
from analysis.report import client_figures, comparison_figures, configurations, figures, sections, static
from analysis.report import page as page_lib
from tests.analysis.report.conftest import NASTY


@pytest.fixture
def table_1(study):
    return configurations.of(study_lib.read(study).experiments[0].runs)


@pytest.fixture
def fine_tuning(study):
    return configurations.of(study_lib.read(study).experiments[1].runs)


def traces(figure, choice, kind=None):
    return [t for t in figure.data if t.meta and t.meta["choice"] == choice and t.meta.get("kind") == kind]


def test_learning_curves_are_the_means_of_the_seeds_beside_their_own(table_1):
    *single, mean = traces(figures.learning_curves(table_1), "E 5", "personalized")
    curves = [run.metrics.dropna()["personalized_accuracy"].to_numpy() for run in table_1[0].runs]
    assert mean.x == (5, 10, 15, 20)
    assert mean.y == pytest.approx(np.mean(curves, axis=0), rel=1e-5)
    assert mean.error_y.array == pytest.approx(np.std(curves, axis=0, ddof=1), rel=1e-5)
    assert [line.y for line in single] == [pytest.approx(curve, rel=1e-5) for curve in curves]


def test_a_switch_of_stages_is_marked(fine_tuning):
    figure = figures.learning_curves(fine_tuning)
    assert [(a.text, a.x) for a in figure.layout.annotations] == [("Reptile", 10.5)]


def test_curves_by_epoch_are_of_the_final_evaluation_of_test_clients(table_1):
    (line,) = traces(figures.personalization_curves(table_1), "E 10")
    rows = [run.evaluations[run.evaluations["split"] == "test"] for run in table_1[1].runs]
    assert line.x == (0, 1, 2)
    assert line.y == pytest.approx(np.mean([table["accuracy_mean"] for table in rows], axis=0), rel=1e-5)


def test_accuracy_by_a_setting_has_its_values_in_order_on_one_line(table_1):
    initial, personalized = figures.by_setting("local_epochs", "E")(table_1).data
    table = configurations.over_seeds(table_1)
    assert initial.x == personalized.x == (5, 10)
    assert personalized.y == pytest.approx(table["personalized_accuracy"], rel=1e-5)
    with pytest.raises(runs_lib.NotRecordedError, match="the same value"):
        figures.by_setting("clients_per_round", "cohort")(table_1)


def test_differences_are_those_of_the_comparison_with_their_intervals(table_1):
    (marks,) = comparison_figures.differences(table_1).data
    row = compare_methods.compare([run for configuration in table_1 for run in configuration.runs]).iloc[1]
    assert marks.name == row["judged"] == "fewer than 3 seeds"
    (x,), (above,), (below,) = marks.x, marks.error_x.array, marks.error_x.arrayminus
    assert (x, x - below, x + above) == pytest.approx(
        tuple(row[["difference", "difference_low", "difference_high"]]), abs=1e-5
    )
    with pytest.raises(runs_lib.NotRecordedError, match="nothing to compare"):
        comparison_figures.differences(table_1[:1])


def test_methods_that_cannot_be_compared_have_no_figure_of_differences(fine_tuning):
    with pytest.raises(runs_lib.NotRecordedError):
        comparison_figures.differences(fine_tuning)  # other seeds


def test_accuracy_by_bytes_is_of_the_runs_that_have_them_on_record(table_1, monkeypatch):
    with pytest.raises(runs_lib.NotRecordedError, match="no run has bytes on record"):
        comparison_figures.by_bytes(table_1)
    for run in table_1[0].runs:
        monkeypatch.setitem(run.summary, "communication", {"stages": {}, "down": 3e9, "up": 1e9})
    (mark,) = comparison_figures.by_bytes(table_1).data
    assert mark.x == (4,)
    assert mark.y == pytest.approx([configurations.over_seeds(table_1)["personalized_accuracy"][0]], rel=1e-5)


def test_accuracy_by_bytes_is_shown_for_runs_that_cannot_be_compared(fine_tuning, monkeypatch):
    """Of other seeds: the figure for print does not compare them either."""
    for configuration in fine_tuning:
        for run in configuration.runs:
            monkeypatch.setitem(run.summary, "communication", {"stages": {}, "down": 3e9, "up": 1e9})
    assert len(sections.show("by_bytes", fine_tuning).drawn.axes[0].containers) == len(fine_tuning)


def test_learning_rates_are_of_validation_clients_after_all_epochs(fine_tuning):
    (line,) = figures.learning_rates(fine_tuning).data
    assert line.x == (0.01, 0.11)
    assert line.y == pytest.approx([0.63, 0.73])


def test_k_shot_keeps_numbers_of_examples_in_their_order(table_1):
    assert figures.k_shot(table_1).data[0].x == ("0", "5", "all")


def test_numbers_of_examples_ascend_if_configurations_have_different_ones(make_run):
    examples = {"a": ("0", "5", "all"), "b": ("0", "1", "5", "20", "all")}
    runs = [runs_lib.read(make_run(name, examples=of, flags={"x": name})) for name, of in examples.items()]
    axis = figures.k_shot(configurations.of(runs)).layout.xaxis
    assert (axis.categoryorder, axis.categoryarray) == ("array", ("0", "1", "5", "20", "all"))


def test_the_update_of_a_configuration_adds_up_to_one(table_1):
    bars = figures.decomposition_by_epochs(table_1).data
    assert [bar.name for bar in bars] == ["FedSGD", *(f"FOMAML, epoch {epoch}" for epoch in (1, 2, 3))]
    assert np.sum([bar.y for bar in bars], axis=0) == pytest.approx(np.ones(4), abs=1e-5)


def test_histograms_count_every_client_of_every_seed_once(table_1):
    for bars in client_figures.distributions(table_1).data:
        assert sum(bars.y) == 2 * 10  # of 12 clients, 2 have no test examples
    for line in client_figures.cumulative(table_1).data:
        assert (line.y[0], line.y[-1]) == (0, 1)
        assert set(line.text[:-1]) == {"below"}
        assert line.text[-1] == "at or below"  # the last bin includes accuracy 1


def test_a_mark_of_a_client_leads_to_its_record(fine_tuning):
    figure = client_figures.gains(fine_tuning, key=lambda run: f"in/{run.name}")
    rows = figure.layout.meta["clients"]
    marks = next(trace for trace in figure.data if trace.customdata is not None)
    assert [row[0] for row in rows].count("in/slow") == 0  # it released only aggregates
    for (place, examples, *_), x, y in zip(marks.customdata, marks.x, marks.y, strict=True):
        _, _, recorded, initial, personalized = rows[place]
        assert examples == recorded == x
        assert y == pytest.approx(personalized - initial, abs=1e-6)
    assert NASTY in [row[1] for row in rows]
    assert not any("<" in text for trace in figure.data for text in trace.text or ())


def test_many_clients_are_marked_only_for_the_lowest_seeds_and_counted_for_all(table_1, monkeypatch):
    monkeypatch.setattr(client_figures, "MOST_MARKS", 10)
    figure = client_figures.gains(table_1)
    assert [len(trace.x) for trace in figure.data if trace.customdata is not None] == [10, 10]


def test_a_client_of_several_seeds_is_one_client_in_the_means_and_their_errors(table_1):
    once = dataclasses.replace(table_1[0], runs=table_1[0].runs[:1])
    twice = dataclasses.replace(once, runs=once.runs * 2)
    one, two = (client_figures.gains([of]).data[-1] for of in (once, twice))
    assert "mean" in one.name
    assert (one.x, one.y, one.error_y, one.text) == (two.x, two.y, two.error_y, two.text)


def test_a_figure_of_records_that_no_run_has_is_not_made(study):
    sums_alone = [c for c in configurations.of(study_lib.read(study).experiments[1].runs) if "E 2" in c.label]
    with pytest.raises(runs_lib.NotRecordedError, match=r"clients\.csv"):
        client_figures.client_scatter(sums_alone)


def test_what_is_shown_at_first_is_what_the_choices_say(table_1):
    shown = sections.show("distributions", table_1)
    assert [(label, at_first) for label, _, at_first in shown.choices] == [("E 5", True), ("E 10", False)]
    assert [trace.visible for trace in shown.figure.data] == [True, True, False, False]


def test_the_tidy_form_of_a_figure_has_a_row_a_mark(table_1):
    table = page_lib.tidy(figures.learning_curves(table_1))
    assert len(table) == 2 * 2 * 3 * 4  # configurations, kinds, both seeds and their mean, evaluated rounds
    assert table.columns.tolist() == ["series", "communication round", "accuracy", "error bar"]
    assert pd.api.types.is_numeric_dtype(table["accuracy"])


def test_the_tidy_form_names_the_seed_the_configuration_and_both_error_bars(table_1, fine_tuning):
    curves = page_lib.tidy(figures.learning_curves(table_1))
    assert (curves.groupby("series").size() == 4).all()  # evaluated rounds
    assert {"E 5 initial, seed 2", "E 5 initial"} <= set(curves["series"])
    for figure in (client_figures.before_after(table_1), figures.decomposition_by_round(table_1)):
        series = page_lib.tidy(figure)["series"]
        assert {name.split(",")[0] for name in series} == {"E 5", "E 10"}
    ranks, table = page_lib.tidy(figures.ranking(table_1)), configurations.over_seeds(table_1)
    assert ranks["error bar"].tolist() == pytest.approx(table["personalized_accuracy_sd"], rel=1e-5)
    assert ranks["error bar of x"].tolist() == pytest.approx(table["initial_accuracy_sd"], rel=1e-5)
    assert ranks["mark"].str.startswith("rank ").all()
    assert not ranks["mark"].str.contains("<").any()
    assert NASTY in page_lib.tidy(client_figures.gains(fine_tuning))["mark"].tolist()


def test_the_caption_says_which_configurations_have_the_records_of_the_figure_for_print(fine_tuning, table_1):
    assert sections.show("gains", fine_tuning).print_runs == "each configuration, of the 2 that have the records"
    assert sections.show("gains", table_1).print_runs == "the lowest seed of each configuration"
    assert static.from_plot(learning_curves.plot, table_1, 1)[1] == "the first 1"


def test_a_figure_without_a_plot_of_its_own_is_drawn_with_the_same_numbers(fine_tuning, table_1):
    drawn = static.from_figure(figures.ranking(fine_tuning), "title")
    marks = [container.lines[0].get_xydata()[0] for container in drawn.axes[0].containers]
    table = configurations.over_seeds(fine_tuning)
    np.testing.assert_allclose(marks, table[["initial_accuracy", "personalized_accuracy"]], rtol=1e-5)
    bars = static.from_figure(figures.decomposition_by_epochs(table_1), "title").axes[0].patches
    assert max(bar.get_y() + bar.get_height() for bar in bars) == pytest.approx(1, abs=1e-5)


def test_bars_are_drawn_where_a_configuration_has_fewer_parts_than_another(table_1):
    whole = figures.decomposition_by_epochs(table_1)
    whole.data[-1].y = [float("nan"), *whole.data[-1].y[1:]]
    axes = static.from_figure(whole, "title").axes[0]
    tops = {}
    for bar in axes.patches:
        tops[bar.get_x()] = max(tops.get(bar.get_x(), 0), bar.get_y() + bar.get_height())
    assert sorted(tops.values())[1:] == pytest.approx([1] * (len(tops) - 1), abs=1e-5)
    assert min(tops.values()) == pytest.approx(1 - 0.7 / 3, abs=1e-5)
    assert axes.get_ylim()[1] > 1


def test_a_plot_for_print_calls_runs_by_their_labels(table_1):
    drawn, which = static.from_plot(learning_curves.plot, table_1, 2)
    assert which == ""
    assert [text.get_text() for text in drawn.legends[0].texts][2:] == ["E 5", "E 10"]
