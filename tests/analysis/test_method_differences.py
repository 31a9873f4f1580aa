"""The plot of the differences of methods and strategies to a reference."""

import pandas as pd
import pytest

from analysis import compare_methods, method_differences, style
from analysis import runs as runs_lib


def test_differences_are_drawn_with_their_intervals_and_verdicts_the_best_at_the_top(make_run):
    """A method far ahead in three seeds, one far behind in three, and one with a single seed."""
    directories = []
    for method, shift, seeds in (
        ("fed_avg", 0, (1, 2, 3)),
        ("scaffold", 0.2, (1, 2, 3)),
        ("maml", -0.2, (1, 2, 3)),
        ("reptile", 0.05, (1,)),
    ):
        for seed in seeds:
            directory = make_run(f"{method}_{seed}", seed=seed, method=method, strategies=["fine_tuning"])
            table = pd.read_csv(directory / "clients.csv")
            table["accuracy"] = 0.4 + 0.2 * table["accuracy"] + shift * table["epoch"] / 5
            table.to_csv(directory / "clients.csv", index=False)
            directories.append(directory)
    runs = runs_lib.read_all(directories)
    figure = method_differences.plot(runs)
    axes, table = figure.axes[0], compare_methods.compare(runs).set_index("method")
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert (labels[0], labels[-1]) == ("MAML", "SCAFFOLD")  # from below
    drawn = {colour: line for line in axes.lines for colour in [line.get_color()] if line.get_marker() != "None"}
    for method, label, colour in (
        ("scaffold", "SCAFFOLD", style.GREEN),
        ("maml", "MAML", style.VERMILLION),
        ("reptile", "Reptile", style.GREY),
    ):
        assert drawn[colour].get_xdata() == table["difference"][method]
        assert labels[drawn[colour].get_ydata()[0]] == label
    assert drawn[style.GREEN].get_xdata() == pytest.approx(0.2, abs=0.01)
    assert drawn[style.GREY].get_markerfacecolor() == "white"
    intervals = {tuple(segment[:, 0]) for lines in axes.collections for segment in lines.get_segments()}
    rows = table[table["judged"] != compare_methods.REFERENCE]
    assert intervals == set(zip(rows["difference_low"], rows["difference_high"], strict=True))
    with pytest.raises(runs_lib.NotRecordedError, match="nothing to compare"):
        method_differences.plot(runs[:3])


def test_an_interval_several_times_as_wide_as_most_does_not_hide_the_others():
    others = pd.DataFrame(
        [(0.01, 0, 0.02), (-0.01, -0.02, 0), (0.02, 0.01, 0.03), (-0.05, -0.9, 0.8)],
        columns=["difference", "difference_low", "difference_high"],
    )
    low, high = method_differences.limits(others)
    assert -0.03 < low < -0.02
    assert 0.03 < high < 0.04


def test_the_end_of_an_interval_outside_the_plot_is_an_arrow_with_the_number_if_the_mark_is_outside_too(make_run):
    directories = []
    for method, spread in (("fed_avg", 0), ("scaffold", 0.01), ("maml", 0.01), ("reptile", 0.2)):
        for seed in (1, 2, 3):
            directory = make_run(f"{method}_{seed}", seed=seed, method=method, strategies=["fine_tuning"])
            table = pd.read_csv(directory / "clients.csv")
            table["accuracy"] = 0.4 + 0.2 * table["accuracy"] + spread * (seed - 3.5) * table["epoch"] / 5
            table.to_csv(directory / "clients.csv", index=False)
            directories.append(directory)
    axes = method_differences.plot(runs_lib.read_all(directories)).axes[0]
    arrows = {line.get_marker(): line for line in axes.lines if line.get_marker() in "<>"}
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert {marker: (line.get_xdata()[0], labels[line.get_ydata()[0]]) for marker, line in arrows.items()} == {
        "<": (axes.get_xlim()[0], "Reptile"),
        ">": (axes.get_xlim()[1], "Reptile"),
    }
    assert [text.get_text() for text in axes.texts] == ["-0.300"]
