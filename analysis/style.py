"""The look of every plot: readable in print, distinguishable without colour, the same bytes each time."""

import io
import pathlib
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure
from PIL import Image

from analysis import metric, names, run_labels
from analysis import runs as runs_lib
from tff_personalization.errors import UserError
from tff_personalization.records import files

# Okabe and Ito's colour-blind-safe palette without its yellow, which is too pale on paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK = COLOURS
GREY, DARK_GREY = "#7F7F7F", "#444444"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
INITIAL: dict[str, Any] = {"color": BLUE, "linestyle": "--"}
PERSONALIZED: dict[str, Any] = {"color": VERMILLION, "linestyle": "-"}
KINDS = {"initial": INITIAL, "personalized": PERSONALIZED}
LINES = {kind: look["linestyle"] for kind, look in KINDS.items()}
ACCURACY = "accuracy (fraction correct)"

_TITLE_SIZE, _LEGEND_SIZE = 10, 8.5
_NAMED = 4  # the most methods that a title names
_DPI = 200
# No dates and version numbers, so that the same run gives the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}
_RC: Any = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.5,
    "figure.constrained_layout.use": True,
    "figure.titlesize": _TITLE_SIZE,
    "font.size": 9,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.fontsize": _LEGEND_SIZE,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "analysis",
}

# Decorator of every plot function: the style applies while it draws, and Matplotlib's own settings do not change.
styled = matplotlib.rc_context(_RC)


def panels(count: int, columns: int, size: tuple[float, float], **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, at most `columns` side by side, each of `size` (width, height) in inches."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows))
    grid = figure.subplots(rows, columns, squeeze=False, **subplots)
    for unused in grid.flat[count:]:
        unused.remove()
    return figure, list(grid.flat[:count])


def title(figure: Figure, what: str, runs: Sequence[runs_lib.Run]) -> None:
    """Writes a title above `figure`, with the methods (many: their number), tasks and data of `runs`, in several lines.

    The figure grows by the height of these lines, so the panels keep their size.
    """
    characters = _characters(figure.get_figwidth(), _TITLE_SIZE)
    methods = list(dict.fromkeys(names.method(run.config["method"]) for run in runs))
    named = f"method: {', '.join(methods)}" if len(methods) <= _NAMED else f"{len(methods)} methods"
    tasks = ", ".join(dict.fromkeys(names.task(run.config["task"]) for run in runs))
    lines = textwrap.wrap(what, characters)
    lines += textwrap.wrap(f"{named} · task: {tasks}", characters)
    for source in dict.fromkeys(run.source for run in runs):
        lines += textwrap.wrap(f"data: {source}", characters)
    figure.suptitle("\n".join(lines))
    metric.name_in_plot(figure, metric.of(runs))
    figure.set_figheight(figure.get_figheight() + 1.25 * len(lines) * _TITLE_SIZE / 72)


def run_titles(axes: Sequence[Axes], runs: Sequence[runs_lib.Run]) -> None:
    """If there are several runs, writes each panel's run above its title."""
    for panel, label in zip(axes, run_labels.of(runs), strict=True):
        if len(runs) > 1:
            panel.set_title("\n".join([*textwrap.wrap(label, 38), *filter(None, [panel.get_title()])]))


def label_lines(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Labels lines at their right ends, in their colours, and moves labels apart that would overlap.

    Args:
        axes: with its final limits.
        ends: x and y of each line's end, its label and its colour.
    """
    low, high = axes.get_ylim()
    apart = 0.07 * (high - low)
    above = -np.inf
    for x, y, label, colour in sorted(ends, key=lambda end: end[1]):
        above = max(y, above + apart)
        axes.annotate(
            label,
            (x, above),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=_LEGEND_SIZE,
            color=colour,
            annotation_clip=False,
        )


def legend_below(figure: Figure, handles: Sequence[Artist | Container], columns: int = 3) -> None:
    """Puts a legend of `handles` under the panels, where it covers nothing. Long labels give fewer columns.

    The figure grows by the height of the legend, so the panels keep their size.
    """
    longest = max(len(str(handle.get_label())) for handle in handles)
    room = _characters(figure.get_figwidth(), _LEGEND_SIZE)
    columns = max(1, min(columns, len(handles), room // (longest + 8)))  # 8: the line's sample and the gap
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns)
    figure.set_figheight(figure.get_figheight() + 1.5 * -(-len(handles) // columns) * _LEGEND_SIZE / 72)


def _characters(width: float, size: float) -> int:
    """The mean number of characters of font size `size` (points) that fit into `width` (inches)."""
    return int(width * 72 / (0.56 * size))


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The colour, marker and line style of each distinct strategy, in the order of their first occurrence.

    The first, main strategy has the colour of personalized accuracy. The colour of initial accuracy comes last.
    """
    return {
        name: {
            "color": COLOURS[(number + 1) % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": ("-", "--", "-.", ":")[number % 4],
        }
        for number, name in enumerate(dict.fromkeys(names))
    }


def accuracy_limits(runs: Sequence[runs_lib.Run], *values: np.ndarray, step: float = 0.1) -> tuple[float, float]:
    """Axis limits that hold every accuracy in `values`: whole `step`s of the largest value, within 0 and it."""
    everything = np.concatenate([np.ravel(value) for value in values])
    everything = everything[np.isfinite(everything)]
    most = metric.of(runs).upper
    if not everything.size:
        return 0.0, most
    step *= most
    low = max(0.0, step * np.floor(everything.min() / step + 1e-6))
    high = min(most, step * np.ceil(everything.max() / step - 1e-6))
    return (low, high) if high > low else (max(0.0, low - step), min(most, high + step))


def save(figure: Figure, path: pathlib.Path) -> pathlib.Path:
    """Writes `figure` to `path`, whose suffix gives the format (png, pdf, svg), and returns `path`."""
    if path.suffix not in _METADATA:
        raise UserError(f"--output: {path} does not end in {', '.join(_METADATA)}; give a file name that does")
    return files.write_named("output", path, as_bytes(figure, path.suffix))


def as_bytes(figure: Figure, suffix: str) -> bytes:
    """The contents of a file of `figure`. The suffix gives the format: .png, .pdf or .svg."""
    stream = io.BytesIO()
    with matplotlib.rc_context(_RC):
        figure.savefig(stream, format=suffix[1:], dpi=_DPI, metadata=_METADATA[suffix])
    if suffix == ".png":  # a third of the size; the 256 colours are chosen to be near all of the figure's
        image = Image.open(stream).convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        stream = io.BytesIO()
        image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
