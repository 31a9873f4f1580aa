"""The figures for print: a plot of `analysis` if there is one, else a plain drawing of the interactive figure."""

import colorsys
import html
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure

from analysis import runs as runs_lib
from analysis import style
from analysis.report import figures

PlotFn = Callable[[Sequence[runs_lib.Run]], Figure]
_LINES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
_MARKERS = {"circle": "o", "square": "s", "triangle-up": "^", "diamond": "D", "triangle-down": "v", "cross": "P"}
_MARKERS |= {"x": "X", "star": "*", "triangle-left": "<"}


def from_plot(plot: PlotFn, configurations: figures.Configurations, most: int) -> tuple[Figure, str]:
    """A plot of `analysis` with the lowest seed of each configuration, for the first `most` that have the records.

    Runs have their configurations' labels.

    Returns:
        The plot, and which configurations it shows, in words; "" if it shows all.
    """
    runs = [configuration.first_by_label for configuration in configurations]
    try:
        return plot(runs[:most]), f"the first {most}" if len(runs) > most else ""
    except runs_lib.NotRecordedError:
        having = [run for run in runs if _draws(plot, run)]
    if not having:
        raise runs_lib.NotRecordedError("no run has the records")
    first = f"first {most}" if len(having) > most else str(len(having))
    return plot(having[:most]), f"the {first} that have the records"


@style.styled
def from_figure(figure: go.Figure, title: str) -> Figure:
    """The lines, marks and bars of an interactive figure, drawn with Matplotlib in the plots' style."""
    drawn, (axes,) = style.panels(1, 1, (6.5, 3.6))
    handles: dict[str, Artist | Container] = {}
    bottoms: dict[str, float] = {}
    for trace in figure.data:
        name = html.unescape(trace.name)
        if trace.type == "bar":
            names = [", ".join(map(html.unescape, several)) for several in zip(*trace.x, strict=True)]
            heights = np.nan_to_num(np.array(trace.y, float))  # a part that the configuration does not have
            below = [bottoms.get(place, 0.0) for place in names]
            handles[name] = axes.bar(names, heights, bottom=below, color=_colour(trace.marker.color), label=name)
            bottoms |= {place: low + height for place, low, height in zip(names, below, heights, strict=True)}
        elif trace.hoverinfo == "skip":
            axes.plot(trace.x, trace.y, color=style.GREY, linestyle=":", linewidth=1)
        else:
            handles[name] = _scatter(axes, trace, name)
    axes.set(xlabel=figure.layout.xaxis.title.text, ylabel=figure.layout.yaxis.title.text)
    if figure.layout.xaxis.type == "log":
        axes.set_xscale("log")
        axes.set_xticks(figure.layout.xaxis.tickvals, figure.layout.xaxis.ticktext)
        axes.minorticks_off()
    if bottoms:
        axes.tick_params(axis="x", labelrotation=30)
        axes.set_ylim(top=1.02 * max(bottoms.values()))
    style.legend_below(drawn, list(handles.values()), columns=3)
    drawn.suptitle(title)
    drawn.set_figheight(drawn.get_figheight() + 0.2)
    return drawn


def _draws(plot: PlotFn, run: runs_lib.Run) -> bool:
    try:
        plot([run])
    except runs_lib.NotRecordedError:
        return False
    return True


def _scatter(axes: Axes, trace: go.Scatter, name: str) -> Container:
    errors: dict[str, Any] = {}
    for axis in "xy":
        values = trace[f"error_{axis}"].array
        errors[f"{axis}err"] = None if values is None else np.array(values, float)
    return axes.errorbar(
        trace.x,
        np.array(trace.y, float),
        **errors,
        color=_colour(trace.line.color or trace.marker.color),
        linestyle=_LINES[trace.line.dash or "solid"] if "lines" in trace.mode else "none",
        marker=_MARKERS[trace.marker.symbol] if "markers" in trace.mode else None,
        capsize=2,
        elinewidth=1,
        label=name,
    )


def _colour(colour: str) -> str | tuple[float, float, float]:
    """A colour for Matplotlib, also from Plotly's `hsl(hue, saturation%, lightness%)`."""
    if not colour.startswith("hsl"):
        return colour
    hue, saturation, lightness = (float(part.strip(" %")) for part in colour[4:-1].split(","))
    red, green, blue = colorsys.hls_to_rgb(hue / 360, lightness / 100, saturation / 100)
    return red, green, blue
