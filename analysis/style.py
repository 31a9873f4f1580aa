"""How every plot looks: readable in print, told apart without colour, the same bytes each time."""

import pathlib
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import runs as runs_lib
from tff_personalization.errors import UserError

# Okabe and Ito's colour-blind-safe palette without its yellow, which is too pale on paper.
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK = (
    *("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000"),
)
GREY = "#7F7F7F"
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")
INITIAL = {"color": BLUE, "linestyle": "--"}
PERSONALIZED = {"color": VERMILLION, "linestyle": "-"}
ACCURACY = "accuracy (fraction correct)"

_TITLE_SIZE = 10
_DPI = 200
# Without dates and version numbers the same run gives the same bytes.
_METADATA = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}
_RC = {
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
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "analysis",
}

# Decorator of every plot function: the style holds while the function draws and leaves no trace in matplotlib.
styled = matplotlib.rc_context(_RC)


def panels(count: int, columns: int, size: tuple[float, float], **subplots) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at most `columns` side by side, each of `size` (width, height) in inches."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows))
    grid = figure.subplots(rows, columns, squeeze=False, **subplots)
    for unused in grid.flat[count:]:
        unused.remove()
    return figure, list(grid.flat[:count])


def title(figure: Figure, what: str, runs: Sequence[runs_lib.Run]) -> None:
    """Writes above `figure` what it shows, and the task, methods and data of `runs`, wrapped to the figure's width."""
    settings = dict.fromkeys((run.config["task"], run.source) for run in runs)
    methods = ", ".join(dict.fromkeys(run.config["method"] for run in runs))
    characters = int(figure.get_figwidth() * 72 / (0.52 * _TITLE_SIZE))  # 0.52: mean width of a character in ems
    lines = textwrap.wrap(what, characters)
    for number, (task, source) in enumerate(settings):
        end = f" · method: {methods}" if number == len(settings) - 1 else ""
        lines += textwrap.wrap(f"{task}: {source}{end}", characters)
    # A paragraph of settings would push the panels off the page: beyond six lines the run directories tell the rest.
    figure.suptitle("\n".join(lines if len(lines) <= 6 else [*lines[:5], lines[5] + " …"]))


def run_titles(axes: Sequence[Axes], runs: Sequence[runs_lib.Run]) -> None:
    """Heads each panel with its run when there are several, wrapped to the panel's width."""
    for panel, label in zip(axes, runs_lib.labels(runs), strict=True):
        if len(runs) > 1:
            panel.set_title("\n".join(textwrap.wrap(label, 38)))


def legend_below(figure: Figure, handles: Sequence, columns: int = 3) -> None:
    """Puts a legend of `handles` under the panels, where it covers nothing; fewer columns when its labels are long."""
    longest = max(len(handle.get_label()) for handle in handles)
    fitting = max(1, int(figure.get_figwidth() * 72 / (0.52 * 8.5 * longest + 40)))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, fitting, len(handles)))


def accuracy_limits(*values: np.ndarray, step: float = 0.1) -> tuple[float, float]:
    """Axis limits that hold every accuracy in `values`: whole `step`s, within 0 to 1."""
    everything = np.concatenate([np.ravel(value) for value in values])
    everything = everything[np.isfinite(everything)]
    if not everything.size:
        return 0.0, 1.0
    low = max(0.0, step * np.floor(everything.min() / step + 1e-6))
    high = min(1.0, step * np.ceil(everything.max() / step - 1e-6))
    return (low, high) if high > low else (max(0.0, low - step), min(1.0, high + step))


def save(figure: Figure, path: pathlib.Path) -> pathlib.Path:
    """Writes `figure` to `path`, whose suffix says the format (png, pdf, svg), and returns `path`."""
    if path.suffix not in _METADATA:
        raise UserError(f"--output: {path} does not end in {', '.join(_METADATA)}; give a file name that does")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(_RC):
            figure.savefig(path, dpi=_DPI, metadata=_METADATA[path.suffix])
    except OSError as error:
        raise UserError(f"--output: {path} cannot be written ({error.strerror}); give another file") from None
    return path
