"""Personalized accuracy against the bytes that clients and server send each other in training.

    python -m analysis.accuracy_by_bytes RUN [RUN ...] [--output=FILE]

A mark is a method with its settings, the mean over its seeds. Circles are test clients, which did not take part, with
the main strategy. Diamonds are participants with the same strategy, if they were evaluated. Runs of earlier versions do
not have the bytes on record and are left out.
"""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import command_line, compare_methods, style
from analysis import runs as runs_lib

_HEIGHT_OF_A_LABEL = 0.2  # in inches


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws the methods of several runs; NotRecordedError when no run has bytes on record."""
    table = _main_rows(runs)
    number = len(table)
    figure, (axes,) = style.panels(1, 1, (7.0, max(3.6, _HEIGHT_OF_A_LABEL * number + 1.2)))
    gigabytes = table["bytes_sent"] / 1e9
    evaluated = table["participants_accuracy"].notna().any()
    axes.scatter(gigabytes, table["personalized_accuracy"], color=style.VERMILLION, zorder=3)
    if evaluated:
        axes.scatter(gigabytes, table["participants_accuracy"], color=style.BLUE, marker="D", zorder=3)
    if gigabytes.min() > 0 and gigabytes.max() > 10 * gigabytes.min():
        axes.set_xscale("log")
    axes.set(xlabel="GB sent in training, down and up", ylabel=f"personalized {style.ACCURACY}")
    axes.margins(0.06)
    _label(axes, gigabytes, table)
    looks = {"test clients": ("o", style.VERMILLION)} | ({"participants": ("D", style.BLUE)} if evaluated else {})
    style.legend_below(
        figure,
        [
            Line2D([], [], linestyle="", marker=marker, color=colour, label=name)
            for name, (marker, colour) in looks.items()
        ],
    )
    style.title(figure, "Personalized accuracy against bytes sent", runs)
    return figure


def _main_rows(runs: Sequence[runs_lib.Run]) -> pd.DataFrame:
    """The rows of `compare_methods.compare` that are of a main strategy and have bytes on record."""
    table = compare_methods.compare(runs)
    table = table.drop_duplicates(["method", "settings"])  # the main strategy comes first
    table = table[table["bytes_sent"].notna()]
    if table.empty:
        raise runs_lib.NotRecordedError(
            f"{runs[0].directory}: no bytes on record (communication in summary.json); give runs of this version"
        )
    return table


def _label(axes: Axes, gigabytes: pd.Series, table: pd.DataFrame) -> None:
    """Labels the circles in a column at the right, in the order of their accuracies, with a thin line to each."""
    low, high = axes.get_ylim()
    by_accuracy = table["personalized_accuracy"].sort_values()
    step = (high - low) / max(len(by_accuracy), 12)
    ends, above = [], low - step
    for accuracy in by_accuracy:
        above = max(above + step, accuracy)
        ends.append(above)
    beyond = max(0.0, ends[-1] - high)  # moves labels down that would be above the axes
    for place in range(len(ends) - 1, -1, -1):
        most = high if place == len(ends) - 1 else ends[place + 1] - step
        ends[place] = min(ends[place], most) if beyond else ends[place]
    labels = dict(zip(table.index, compare_methods.row_labels(table), strict=True))
    for (row, accuracy), end in zip(by_accuracy.items(), ends, strict=True):
        name = labels[row]
        participants = table["participants_accuracy"][row]
        axes.annotate(
            name if math.isnan(participants) else f"{name} (participants {participants:.2f})",
            (gigabytes[row], accuracy),
            xytext=(1.04, (end - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": style.GREY, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3}
            | {"relpos": (0, 0.5)},
        )


if __name__ == "__main__":
    command_line.run_plot_script("accuracy_by_bytes", plot)
