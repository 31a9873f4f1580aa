"""Accuracy of test clients against the number of train examples for personalization, for every strategy.

    python -m analysis.k_shot RUN [RUN ...] [--output=FILE]

It needs runs with --personalization_examples, and shows accuracy after all personalization epochs.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis import command_line, names, style
from analysis import runs as runs_lib

_BAND = ("accuracy_q25", "accuracy_q75")


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws one panel per run; NotRecordedError when a run was evaluated with only one number of examples."""
    figure, axes = style.panels(len(runs), 2, (5.5, 3.1) if len(runs) == 1 else (3.6, 2.8), sharey=True)
    tables = [run.k_shot for run in runs]
    tables = [table[table["epoch"] == table["epoch"].max()].dropna(subset=["accuracy_mean"]) for table in tables]
    looks = style.looks(strategy for table in tables for strategy in table["strategy"])
    for panel, table in zip(axes, tables, strict=True):
        # Evenly spaced, because the numbers span orders of magnitude, and "all" is not a number.
        places = {examples: place for place, examples in enumerate(dict.fromkeys(table["examples"]))}
        for number, (strategy, rows) in enumerate(table.groupby("strategy", sort=False)):
            x, look = rows["examples"].map(places), looks[str(strategy)]
            panel.plot(x, rows["accuracy_mean"], **look)
            if number == 0:  # one band, because those of several strategies would hide each other
                panel.fill_between(x, *(rows[edge] for edge in _BAND), color=look["color"], alpha=0.12)
        panel.set_xticks(list(places.values()), list(places))
        panel.set_xlabel("train examples of the client")
    drawn = [table[["accuracy_mean", *_BAND]].to_numpy() for table in tables]
    axes[0].set_ylim(*style.accuracy_limits(runs, *drawn, step=0.05))
    for panel in axes[::2]:
        panel.set_ylabel(style.ACCURACY)
    style.run_titles(axes, runs)
    lines = [Line2D([], [], **look, label=names.strategy(strategy)) for strategy, look in looks.items()]
    band = Patch(color=style.GREY, alpha=0.3, label="middle half of clients, first strategy")
    style.legend_below(figure, [Line2D([], [], color=style.GREY, label="mean of clients"), band, *lines], columns=5)
    style.title(figure, "Personalized accuracy of test clients by number of train examples", runs)
    return figure


if __name__ == "__main__":
    command_line.run_plot_script("k_shot", plot)
