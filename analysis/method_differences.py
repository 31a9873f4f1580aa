"""Each method's and strategy's difference to the reference, with its interval: a forest plot of `compare_methods`.

    python -m analysis.method_differences RUN [RUN ...] [--reference=RUN] [--output=FILE]

A row is a method with its settings and a strategy. Its mark is the difference of personalized accuracy, the mean over
seeds and clients; its line the interval; its colour the verdict. The best row is at the top. Differences in the grey
band do not matter. A hollow mark has too few seeds for a verdict. An arrow says that the interval ends outside the
plot: it is several times as wide as most, and the others could not be distinguished beside it. If its mark is outside
too, the number is beside the arrow.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import command_line, compare_methods, metric, style
from analysis import runs as runs_lib

_HEIGHT_OF_A_ROW = 0.2  # in inches
_WIDEST = 4  # times the median width: the widest interval that the axis has space for
_MARGIN = 0.04  # of the length of the axis
LOOKS = {  # colour and marker of each verdict
    compare_methods.AHEAD: (style.GREEN, "^"),
    compare_methods.NO_DIFFERENCE: (style.BLUE, "s"),
    compare_methods.BEHIND: (style.VERMILLION, "v"),
    compare_methods.UNDECIDED: (style.DARK_GREY, "o"),
    compare_methods.FEW_SEEDS: (style.GREY, "o"),
}


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws the differences of all rows to the reference, the main strategy of the first run.

    Raises:
        UserError: the runs cannot be compared, or there is only the reference.
    """
    others = rows(runs)
    figure, (axes,) = style.panels(1, 1, (7.5, _HEIGHT_OF_A_ROW * len(others) + 0.9))
    margin = compare_methods.MARGIN * metric.of(runs).upper
    axes.axvspan(-margin, margin, color=style.GREY, alpha=0.15, linewidth=0, zorder=0)
    axes.axvline(0, color=style.BLACK, linewidth=0.8, zorder=1)
    axes.set_xlim(limits(others))
    for verdict, of_verdict in others.groupby("judged"):
        _draw(axes, of_verdict, _look(verdict))
    axes.set_yticks(others["place"], others["label"], fontsize=8)
    axes.set_ylim(-0.7, len(others) - 0.3)
    axes.grid(axis="y", visible=False)
    side = "" if metric.of(runs).higher_is_better else ", positive is better"
    axes.set_xlabel(f"difference of personalized accuracy{side}")
    shown = [verdict for verdict in LOOKS if verdict in set(others["judged"])]
    style.legend_below(figure, [_sample(verdict) for verdict in shown])
    style.title(figure, f"Difference to {others.attrs['reference']}", runs)
    return figure


def rows(runs: Sequence[runs_lib.Run]) -> pd.DataFrame:
    """The rows of `compare_methods.compare` besides those of the reference, by their difference, the lowest first.

    Returns:
        As `compare`, with `label`, and `place` from 0. `attrs["reference"]` is the reference's label.

    Raises:
        UserError: the runs cannot be compared, or there is only the reference.
    """
    table = compare_methods.compare(runs)
    table["label"] = compare_methods.row_labels(table)
    others = table[table["judged"] != compare_methods.REFERENCE].sort_values("difference", kind="stable")
    if others.empty:
        raise runs_lib.NotRecordedError(f"{runs[0].directory}: nothing to compare; give runs of other methods too")
    others["place"] = range(len(others))
    others.attrs["reference"] = table["label"].iloc[0]
    return others


def limits(others: pd.DataFrame) -> tuple[float, float]:
    """The ends of the axis. All intervals are between them, except those that are much wider than most.

    Args:
        others: what `rows` gives.
    """
    width = others["difference_high"] - others["difference_low"]
    usual = others[width <= _WIDEST * width.median()]
    low, high = min(0, usual["difference_low"].min()), max(0, usual["difference_high"].max())
    space = _MARGIN * ((high - low) or 1)
    return low - space, high + space


def _draw(axes: Axes, of_verdict: pd.DataFrame, look: dict[str, Any]) -> None:
    lows, highs = of_verdict["difference_low"], of_verdict["difference_high"]
    axes.hlines(of_verdict["place"], lows, highs, color=look["color"], linewidth=1.2)
    left, right = axes.get_xlim()
    for edge, outside, arrow in ((left, lows < left, "<"), (right, highs > right, ">")):
        places = of_verdict["place"][outside]
        if len(places):  # An empty line that is not clipped would take space at the corner of the figure.
            axes.plot([edge] * len(places), places, linestyle="", marker=arrow, color=look["color"], clip_on=False)
    axes.plot(of_verdict["difference"], of_verdict["place"], **look, zorder=3)
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for difference, place in of_verdict[["difference", "place"]].itertuples(index=False):
        if not left <= difference <= right:
            edge, inwards, side = (left, 8, "left") if difference < left else (right, -8, "right")
            axes.annotate(
                f"{difference:+.3f}",
                (edge, place),
                (inwards, 0),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=8,
                bbox=white,
            )


def _sample(verdict: str) -> Line2D:
    return Line2D([], [], **_look(verdict), label=verdict)


def _look(verdict: str) -> dict[str, Any]:
    """How Matplotlib draws the marks of a verdict."""
    colour, marker = LOOKS[verdict]
    inside = "white" if verdict == compare_methods.FEW_SEEDS else colour
    return {"linestyle": "", "marker": marker, "color": colour, "markerfacecolor": inside}


if __name__ == "__main__":
    command_line.run_plot_script("method_differences", plot, with_reference=True)
