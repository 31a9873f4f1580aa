"""Personalized accuracy by the bytes that clients and server send each other in training.

    python -m analysis.accuracy_by_bytes RUN [RUN ...] [--output=FILE]

A row is a method with its settings, the mean over its seeds. A line separates groups of rows that send about the same
bytes. The group that sends the fewest is at the top; in a group, the best row is. Circles are test clients, which did
not take part, with the main strategy. Diamonds are participants with the same strategy, if they were evaluated. Runs of
earlier versions do not have the bytes on record and are left out.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analysis import command_line, compare_methods, metric, style
from analysis import runs as runs_lib

_HEIGHT_OF_A_ROW = 0.2  # in inches
_APART = 1.05  # the ratio of bytes at which another group begins


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws the methods of several runs; NotRecordedError when no run has bytes on record."""
    table = _main_rows(runs)
    figure, (axes,) = style.panels(1, 1, (7.5, _HEIGHT_OF_A_ROW * len(table) + 0.9))
    looks = {"test clients": ("personalized_accuracy", "o", "full", style.VERMILLION)}
    if table["participants_accuracy"].notna().any():
        looks["participants"] = ("participants_accuracy", "D", "none", style.BLUE)
    samples = [
        axes.plot(table[column], table.index, linestyle="", marker=marker, color=colour, fillstyle=fill, label=name)[0]
        for name, (column, marker, fill, colour) in looks.items()
    ]
    for first in table.index[table["group"].diff() > 0]:
        axes.axhline(first - 0.5, color=style.GREY, linewidth=0.6)
    gigabytes = (table["bytes_sent"] / 1e9).map("{:.3g} GB".format)
    labels = [f"{label} · {sent}" for label, sent in zip(compare_methods.row_labels(table), gigabytes, strict=True)]
    axes.set_yticks(table.index, labels, fontsize=8)
    axes.set_ylim(len(table) - 0.3, -0.7)
    axes.set_xlabel(f"personalized {style.ACCURACY}")
    style.legend_below(figure, samples)
    style.title(figure, "Personalized accuracy by the bytes sent in training, down and up", runs)
    return figure


def _main_rows(runs: Sequence[runs_lib.Run]) -> pd.DataFrame:
    """The rows of `compare_methods.compare` that are of a main strategy and have bytes on record.

    Returns:
        As `compare`, with `group` from 0: rows of about the same bytes. The groups are in the order of their bytes, the
        rows of a group by accuracy, the best first.
    """
    table = compare_methods.compare(compare_methods.reference_first(runs))
    table = table.drop_duplicates(["method", "settings"])  # the main strategy comes first
    table = table[table["bytes_sent"].notna()]
    if table.empty:
        raise runs_lib.NotRecordedError(
            f"{runs[0].directory}: no bytes on record (communication in summary.json); give runs of this version"
        )
    table = table.sort_values("bytes_sent")
    table["group"] = (table["bytes_sent"] > _APART * table["bytes_sent"].shift()).cumsum()
    upwards = not metric.of(runs).higher_is_better
    return table.sort_values(["group", "personalized_accuracy"], ascending=[True, upwards], ignore_index=True)


if __name__ == "__main__":
    command_line.run_plot_script("accuracy_by_bytes", plot)
