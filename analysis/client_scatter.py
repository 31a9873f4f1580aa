"""Each test client's accuracy before and after personalization. On the diagonal, nothing changes.

    python -m analysis.client_scatter RUN [RUN ...] [--output=FILE]

Accuracies are fractions of few test examples, so clients coincide. The area of a marker grows with their number.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import command_line, metric, style
from analysis import runs as runs_lib

_AREA = 16.0  # area of one client's marker, in square points
# Sign of the gain, marker and colour of each kind of client.
_KINDS = {"gaining": (1, "^", style.GREEN), "unchanged": (0, "o", style.GREY), "hurt": (-1, "v", style.PURPLE)}


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws one panel per run; NotRecordedError when a run has no per-client accuracies."""
    figure, axes = style.panels(len(runs), 2, (4.6, 4.2) if len(runs) == 1 else (3.7, 4.3))
    gains = [run.client_gains() for run in runs]
    low, high = style.accuracy_limits(runs, *(table[["initial", "personalized"]].to_numpy() for table in gains))
    most, most_accurate = 1, metric.of(runs).upper
    for panel, table in zip(axes, gains, strict=True):
        panel.plot([0, most_accurate], [0, most_accurate], color=style.BLACK, linewidth=0.9, linestyle="--")
        sign, shares = np.sign(table["gain"]), []
        for name, (wanted, marker, colour) in _KINDS.items():
            chosen = table[sign == wanted]
            shares.append(f"{len(chosen) / len(table):.0%} {name}")
            points = chosen.groupby(["initial", "personalized"], as_index=False).size()
            most = max([most, *points["size"]])
            look: dict[str, Any] = {"marker": marker, "color": colour, "alpha": 0.7, "linewidth": 0, "zorder": 3}
            look["clip_on"] = False  # shows the whole marker of a client at accuracy 1
            panel.scatter(points["initial"], points["personalized"], s=_AREA * points["size"], **look)
        panel.set_title(f"n = {len(table)}: {', '.join(shares)}", fontsize=8)
        panel.set(xlim=(low, high), ylim=(low, high), box_aspect=1)
        panel.set(xlabel=f"initial {style.ACCURACY}", ylabel=f"personalized {style.ACCURACY}")
    style.run_titles(axes, runs)
    style.legend_below(figure, _legend(most), columns=len(_KINDS))
    style.title(figure, "Test clients before and after personalization", runs)
    return figure


def _legend(most: int) -> list[Line2D]:
    """The legend of markers and, if clients coincide, of sizes: a kind of client above a number of clients."""
    kinds = [
        Line2D([], [], linestyle="", marker=marker, color=colour, label=name)
        for name, (_, marker, colour) in _KINDS.items()
    ]
    different = sorted({1, (most + 1) // 2, most}) if most > 1 else []
    numbers = {size: f"{size} clients" if size > 1 else "1 client" for size in different}
    sizes = [
        Line2D([], [], linestyle="", marker="o", color=style.GREY, markersize=np.sqrt(_AREA * size), label=label)
        for size, label in numbers.items()
    ]
    pairs = itertools.zip_longest(kinds, sizes)
    return [entry for pair in pairs for entry in pair if entry is not None]


if __name__ == "__main__":
    command_line.run_plot_script("client_scatter", plot)
