"""Each test client's accuracy before and after personalization; above the diagonal a client gains.

    python -m analysis.client_scatter RUN [RUN ...] [--output=FILE]

Accuracies are fractions of few test examples, so clients coincide: the area of a marker grows with their number.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import command_line, style
from analysis import runs as runs_lib

_AREA = 16.0  # of a marker for one client, in square points


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws one panel per run; NotRecordedError when a run has no per-client accuracies."""
    figure, axes = style.panels(len(runs), 2, (4.6, 4.5) if len(runs) == 1 else (3.6, 3.6))
    gains = [run.client_gains() for run in runs]
    low, high = style.accuracy_limits(*(table[["initial", "personalized"]].to_numpy() for table in gains))
    most = 1
    for panel, table in zip(axes, gains, strict=True):
        sign = np.sign(table["gain"])
        kinds = {"gaining": (1, "^", style.BLUE), "unchanged": (0, "o", style.GREY), "hurt": (-1, "v", style.VERMILLION)}
        panel.plot([0, 1], [0, 1], color=style.BLACK, linewidth=0.9, linestyle="--")
        handles = []
        for name, (wanted, marker, colour) in kinds.items():
            coinciding = table[sign == wanted].groupby(["initial", "personalized"]).size()
            points = coinciding.index.to_frame()
            most = max(most, coinciding.max() if len(coinciding) else 1)
            panel.scatter(
                points["initial"],
                points["personalized"],
                s=_AREA * coinciding,
                marker=marker,
                facecolor=colour,
                edgecolor="white",
                linewidth=0.4,
                alpha=0.75,
                clip_on=False,
                zorder=3,
                label=name,
            )
            share = f"{name} {100 * (sign == wanted).mean():.0f} %"
            handles.append(Line2D([], [], linestyle="", marker=marker, color=colour, label=share))
        panel.legend(handles=handles, loc="lower right", title=f"{len(table)} clients", title_fontsize=8.5)
        panel.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        panel.set(xlabel=f"initial {style.ACCURACY}", ylabel=f"personalized {style.ACCURACY}")
    style.run_titles(axes, runs)
    _size_legend(figure, most)
    style.title(figure, "Test clients before and after personalization", runs)
    return figure


def _size_legend(figure: Figure, most: int) -> None:
    """Says how many coinciding clients a marker stands for."""
    sizes = [size for size in (1, 2, 5, 10, 20, 50, 100) if size < most] + [most]
    style.legend_below(
        figure,
        [
            Line2D(
                *([], []),
                linestyle="",
                marker="o",
                color=style.GREY,
                markersize=np.sqrt(_AREA * size),
                label=f"{size} client{'s' if size > 1 else ''}",
            )
            for size in sizes
        ],
        columns=len(sizes),
    )


if __name__ == "__main__":
    command_line.run_plot_script("client_scatter", plot)
