"""Each test client's accuracy before and after personalization, ordered by initial accuracy.

    python -m analysis.before_after RUN [RUN ...] [--output=FILE]

A vertical line joins a client's two accuracies; it is purple if the client is hurt. Needs per-client records.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import command_line, style
from analysis import runs as runs_lib

_KINDS = {"initial": (style.BLUE, "o"), "personalized": (style.VERMILLION, "^")}


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws one panel per run; NotRecordedError when a run has no per-client accuracies."""
    figure, axes = style.panels(len(runs), 2, (6.5, 3.2) if len(runs) == 1 else (3.7, 2.8), sharey=True)
    tables = [run.client_gains().sort_values(["initial", "personalized"], kind="stable") for run in runs]
    low, high = style.accuracy_limits(runs, *(table[["initial", "personalized"]].to_numpy() for table in tables))
    for panel, table in zip(axes, tables, strict=True):
        places = np.arange(1, len(table) + 1)
        size = float(np.clip(900 / len(table), 3, 26))
        hurt = (table["gain"] < 0).to_numpy()
        for chosen, colour, width in ((~hurt, "#B8B8B8", 1.2), (hurt, style.PURPLE, 2.2)):
            initial, personalized = (table[kind][chosen] for kind in _KINDS)
            panel.vlines(places[chosen], initial, personalized, colour, linewidth=width)
        for kind, (colour, marker) in _KINDS.items():
            look: dict[str, Any] = {"color": colour, "marker": marker, "linewidth": 0, "zorder": 3, "clip_on": False}
            panel.scatter(places, table[kind], s=size, **look)
            mean = table[kind].mean()
            panel.axhline(mean, color=colour, linewidth=0.9, linestyle=style.LINES[kind])
            above = mean == table[list(_KINDS)].mean().max()
            place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "bottom" if above else "top"}
            panel.annotate(f"mean {mean:.3f}", (1.01, mean), **place, color=colour, fontsize=8)
        panel.set(xlabel="test clients, by initial accuracy", xlim=(0, len(table) + 1), ylim=(low, high), xticks=[])
        panel.grid(visible=False, axis="x")
        gained, lost = int((table["gain"] > 0).sum()), int(hurt.sum())
        panel.set_title(f"{gained} of {len(table)} clients gain, {lost} hurt", fontsize=8.5)
    for panel in axes[::2]:
        panel.set_ylabel(style.ACCURACY)
    style.run_titles(axes, runs)
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=colour, label=f"{kind} accuracy")
        for kind, (colour, marker) in _KINDS.items()
    ]
    handles.append(Line2D([], [], color=style.PURPLE, linewidth=2.2, label="client that is hurt"))
    style.legend_below(figure, handles, columns=3)
    style.title(figure, "Each test client before and after personalization", runs)
    return figure


if __name__ == "__main__":
    command_line.run_plot_script("before_after", plot)
