"""Accuracy of test clients against the personalization epoch, for every strategy: mean, and the middle half of clients.

    python -m analysis.personalization_epochs RUN [RUN ...] [--output=FILE]

It uses the aggregates of the final evaluation on all test clients, which every run has.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis import command_line, names, style
from analysis import runs as runs_lib

_BAND = ("accuracy_q25", "accuracy_q75")
_MOST_BANDS = 3  # more of them in one panel would hide each other; then only the main strategy has one


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws the final evaluation on all test clients, one panel per run; epoch 0 is the initial model."""
    figure, axes = style.panels(len(runs), 2, (5.5, 3.1) if len(runs) == 1 else (3.6, 2.8), sharey=True)
    finals = [runs_lib.final_evaluation(run) for run in runs]
    looks = style.looks(strategy for final in finals for strategy in final["strategy"])
    for panel, final in zip(axes, finals, strict=True):
        banded = list(final["strategy"].unique())
        banded = banded if len(banded) <= _MOST_BANDS else banded[:1]
        for strategy, rows in final.groupby("strategy", sort=False):
            rows, look = rows.sort_values("epoch"), looks[str(strategy)]
            panel.plot(rows["epoch"], rows["accuracy_mean"], **look)
            if strategy not in banded:
                continue
            panel.fill_between(rows["epoch"], *(rows[edge] for edge in _BAND), color=look["color"], alpha=0.1)
            for edge in _BAND:  # edges distinguish overlapping bands
                panel.plot(rows["epoch"], rows[edge], color=look["color"], linestyle=look["linestyle"], linewidth=0.7)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set(xlabel="personalization epoch (0: initial model)")
    drawn = [final[["accuracy_mean", *_BAND]].to_numpy() for final in finals]
    low, high = style.accuracy_limits(runs, *drawn, step=0.05)
    axes[0].set_ylim(low, high)
    for panel in axes[::2]:
        panel.set_ylabel(style.ACCURACY)
    style.run_titles(axes, runs)
    lines = [Line2D([], [], **look, label=names.strategy(strategy)) for strategy, look in looks.items()]
    if len(runs) == 1 and len(lines) <= _MOST_BANDS:
        lines = []
        last = finals[0][finals[0]["epoch"] == finals[0]["epoch"].max()].set_index("strategy")
        ends = [
            (last["epoch"][strategy], last["accuracy_mean"][strategy], names.strategy(strategy), look["color"])
            for strategy, look in looks.items()
        ]
        style.label_lines(axes[0], ends)
    band = Patch(color=style.GREY, alpha=0.3, label="middle half of clients")
    style.legend_below(figure, [Line2D([], [], color=style.GREY, label="mean of clients"), band, *lines], columns=5)
    style.title(figure, "Accuracy of test clients by personalization epoch", runs)
    return figure


if __name__ == "__main__":
    command_line.run_plot_script("personalization_epochs", plot)
