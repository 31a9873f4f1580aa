"""Accuracy of test clients against the personalization epoch, for every strategy: mean and inter-quartile band.

    python -m analysis.personalization_epochs RUN [RUN ...] [--output=FILE]
"""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import command_line, style
from analysis import runs as runs_lib
from tff_personalization.errors import UserError


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws the final evaluation on all test clients, one panel per run; epoch 0 is the initial model."""
    figure, axes = style.panels(len(runs), 2, (5.5, 3.9) if len(runs) == 1 else (3.6, 3.1), sharey=True)
    finals = [_final(run) for run in runs]
    strategies = list(dict.fromkeys(strategy for final in finals for strategy in final["strategy"]))
    looks = {
        strategy: {
            "color": style.COLOURS[number % len(style.COLOURS)],
            "marker": style.MARKERS[number % len(style.MARKERS)],
            "linestyle": ("-", "--", "-.", ":")[number % 4],
        }
        for number, strategy in enumerate(strategies)
    }
    for panel, final in zip(axes, finals, strict=True):
        for strategy, rows in final.groupby("strategy", sort=False):
            rows, look = rows.sort_values("epoch"), looks[str(strategy)]
            panel.plot(rows["epoch"], rows["accuracy_mean"], **look)
            panel.fill_between(
                rows["epoch"], rows["accuracy_q25"], rows["accuracy_q75"], color=look["color"], alpha=0.15, linewidth=0
            )
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set(xlabel="personalization epoch (0: initial model)", ylabel=style.ACCURACY)
    low, high = style.accuracy_limits(*(final[["accuracy_q25", "accuracy_q75"]].to_numpy() for final in finals), step=0.05)
    axes[0].set_ylim(low, high)
    style.run_titles(axes, runs)
    style.legend_below(figure, [Line2D([], [], **look, label=strategy) for strategy, look in looks.items()])
    style.title(figure, "Accuracy by personalization epoch: mean over test clients, middle half shaded", runs)
    return figure


def _final(run: runs_lib.Run):
    """The rows of evaluations.csv about all test clients, in the last round that has them."""
    _ = run.summary  # an unfinished run has no final evaluation
    rows = run.evaluations[run.evaluations["split"] == "test"].dropna(subset=["accuracy_mean"])
    if rows.empty:
        raise UserError(f"{run.directory / 'evaluations.csv'}: no accuracy with split 'test'; repeat the final evaluation")
    return rows[rows["round"] == rows["round"].max()]


if __name__ == "__main__":
    command_line.run_plot_script("personalization_epochs", plot)
