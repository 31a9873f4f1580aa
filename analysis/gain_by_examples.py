"""Gain of each test client against its number of train examples.

    python -m analysis.gain_by_examples RUN [RUN ...] [--output=FILE]

Clients with similar numbers of examples are also averaged, to show the trend within the scatter.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import command_line, style
from analysis import runs as runs_lib


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws one panel per run; NotRecordedError when a run has no per-client accuracies."""
    figure, axes = style.panels(len(runs), 2, (5.5, 3.1) if len(runs) == 1 else (3.6, 2.8), sharey=True)
    for panel, run in zip(axes, runs, strict=True):
        gains = run.client_gains()
        panel.axhline(0, color=style.BLACK, linewidth=0.9, linestyle="--")
        clients = panel.scatter(
            gains["train_examples"],
            gains["gain"],
            s=14,
            color=style.BLUE,
            alpha=0.45,
            linewidth=0,
            label="one client",
        )
        means = binned_gain(gains)
        line = panel.errorbar(
            means["train_examples"],
            means["gain"],
            yerr=means["standard_error"],
            color=style.BLUE,
            fmt="s",
            elinewidth=1.6,
            capsize=3,
            label="clients with similar numbers of examples: mean ± standard error",
        )
        panel.set(xlabel="train examples of the client", xlim=(0, None))
    for panel in axes[::2]:
        panel.set_ylabel("gain in accuracy\n(positive: better)")
    style.run_titles(axes, runs)
    style.legend_below(figure, [clients, line], columns=2)
    style.title(figure, "Gain by number of train examples, test clients", runs)
    return figure


def binned_gain(gains: pd.DataFrame, bins: int = 6) -> pd.DataFrame:
    """Mean gain of clients grouped into `bins` groups of about equal size by number of train examples.

    Args:
        gains: one row per client; columns train_examples, gain.
        bins: at most this many groups; fewer when many clients have the same number of examples.

    Returns:
        One row per group; columns train_examples (mean), gain (mean), standard_error (of the mean gain, missing for
        a group of one client), clients.
    """
    # With few clients, only as many groups as have enough clients.
    grouped = gains.groupby(groups(gains["train_examples"], min(bins, max(1, len(gains) // 5))))
    return pd.DataFrame(
        {
            "train_examples": grouped["train_examples"].mean(),
            "gain": grouped["gain"].mean(),
            "standard_error": grouped["gain"].std(ddof=1) / np.sqrt(grouped.size()),
            "clients": grouped.size(),
        }
    )


def groups(train_examples: pd.Series, count: int) -> pd.Series:
    """Each client's group, by ascending train examples: at most `count` groups of about equal size.

    There are fewer groups if many clients have the same number."""
    if train_examples.nunique() <= 1:
        return pd.Series(0, train_examples.index)
    return pd.qcut(train_examples, count, labels=False, duplicates="drop")


if __name__ == "__main__":
    command_line.run_plot_script("gain_by_examples", plot)
