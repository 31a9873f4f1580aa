"""Distribution over test clients of the accuracy before and after personalization: histogram and CDF side by side.

    python -m analysis.accuracy_distributions RUN [RUN ...] [--output=FILE]

It uses per-client values (clients.csv) if the run has them, else the released histogram (distribution.csv). The
histogram is the same in both cases; from a released one, the CDF is known only at the edges of the bins.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import command_line, metric, style
from analysis import runs as runs_lib
from tff_personalization.errors import UserError

_BINS = 100  # as many as aggregates have
_BARS = 20  # most bars: finer ones only show that accuracies are fractions of few test examples


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws one row per run: histogram on the left, CDF on the right; dashed and solid verticals are the means."""
    figure, axes = style.panels(2 * len(runs), 2, (3.5, 2.4), sharex=True)
    supports = []
    for run, left, right in zip(runs, axes[::2], axes[1::2], strict=True):
        for kind in style.KINDS:
            edges, counts = histogram(run, kind)
            if not counts.sum():
                raise runs_lib.NotRecordedError(f"{run.directory}: no test client has test examples, nothing to draw")
            supports.append(edges[[counts.nonzero()[0][0], counts.nonzero()[0][-1] + 1]])
            _draw(run, kind, edges, counts, left, right)
        left.set(ylabel="test clients", ylim=(0, None))
        right.set(ylabel="share of test clients\nat or below", ylim=(-0.02, 1.02))
    low, high = style.accuracy_limits(runs, *supports)
    edge = 0.01 * metric.of(runs).upper
    for panel in axes[-2:]:
        panel.set(xlabel=style.ACCURACY, xlim=(low - edge, high + edge))
    style.run_titles(axes[::2], runs)
    style.legend_below(figure, _legend(runs), columns=2)
    style.title(figure, "Accuracy of test clients before and after personalization", runs)
    return figure


def histogram(run: runs_lib.Run, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Counts of test clients by accuracy.

    Args:
        run: a finished run.
        kind: "initial" or "personalized".

    Returns:
        The bin edges, shape (bins + 1,), and counts of clients, shape (bins,). A bin includes its lower edge; the last
        bin also includes its upper edge. Without per-client values, the bins are the released ones.
    """
    if run.clients is not None:
        edges = run.metric.upper * np.linspace(0, 1, _BINS + 1).round(6)
        # The margin puts an accuracy such as 7/10 into the bin that starts at 0.7, despite rounding of either.
        bins = np.searchsorted(edges, run.client_gains()[kind].to_numpy() + 1e-6 * run.metric.upper, side="right") - 1
        return edges, np.bincount(bins.clip(0, _BINS - 1), minlength=_BINS)
    strategy, last = run.summary["strategy"], run.summary["personalization_epochs"]
    epoch = 0 if kind == "initial" else last
    released = run.distribution
    released = released[(released["strategy"] == strategy) & (released["epoch"] == epoch)].sort_values("bin_low")
    if released.empty:
        path = run.directory / "distribution.csv"
        raise UserError(f"{path}: no rows with strategy {strategy!r} and epoch {epoch}; repeat the run")
    edges = np.append(released["bin_low"].to_numpy(), released["bin_high"].to_numpy()[-1])
    return edges, released["clients"].to_numpy()


def merged(edges: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The histogram with neighbouring bins merged in equal numbers, to at most 20 bars."""
    together = next(
        size for size in range(1, len(counts) + 1) if len(counts) % size == 0 and len(counts) / size <= _BARS
    )
    return edges[::together], counts.reshape(-1, together).sum(axis=1)


def _draw(run: runs_lib.Run, kind: str, edges: np.ndarray, counts: np.ndarray, left: Axes, right: Axes) -> None:
    """Adds the accuracies of one kind to the histogram (left) and the CDF (right)."""
    look = style.KINDS[kind]
    bars, heights = merged(edges, counts)
    first, last = heights.nonzero()[0][[0, -1]]
    bars, heights = bars[first : last + 2], heights[first : last + 1]
    hatch = "////" if kind == "personalized" else None
    fill = {"facecolor": look["color"], "edgecolor": look["color"], "alpha": 0.35, "linewidth": 0, "hatch": hatch}
    left.stairs(heights, bars, fill=True, **fill)
    # The dashed outline of initial accuracies lies over the solid one, so both are visible where they coincide.
    left.stairs(heights, bars, **look, linewidth=1.6, zorder=4 if kind == "initial" else 3)
    if run.clients is None:
        right.plot(edges, np.append(0, counts.cumsum()) / counts.sum(), **look)
    else:
        values = pd.Series(np.sort(run.client_gains()[kind]))
        right.step(
            [0.0, *values, run.metric.upper], [0.0, *((values.index + 1) / len(values)), 1.0], where="post", **look
        )
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in (left, right):
        panel.axvline(run.summary[f"{kind}_accuracy"]["mean"], **look, linewidth=1)


def _legend(runs: Sequence[runs_lib.Run]) -> list[Line2D]:
    """One entry per kind, with the mean if there is only one run."""
    entries: list[Line2D] = []
    for kind, look in style.KINDS.items():
        mean = f", mean {runs[0].summary[f'{kind}_accuracy']['mean']:.3f}" if len(runs) == 1 else ", vertical: mean"
        entries.append(Line2D([], [], **look, label=f"{kind} accuracy{mean}"))
    return entries


if __name__ == "__main__":
    command_line.run_plot_script("accuracy_distributions", plot)
