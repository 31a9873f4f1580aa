"""FedSGD's and FOMAML's terms of FedAvg's updates, by round: shares of the cohort's update, and cosines.

    python -m analysis.decomposition RUN [RUN ...] [--output=FILE]

It needs runs that `python -m tff_personalization.tools.decompose` has decomposed.
"""

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis import command_line, style
from analysis import runs as runs_lib


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws two panels per run: the shares, which add up to 1, and each part's cosine with FedSGD's term.

    Raises:
        UserError: a run was not decomposed, or its decomposition has no rounds.
    """
    figure, axes = style.panels(2 * len(runs), 2, (3.8, 2.9))
    tables = [run.decomposition[run.decomposition["level"] == "cohort"] for run in runs]
    parts = sorted({int(part) for table in tables for part in table["part"]})
    # Later epochs are paler. The first ones differ strongly, so that few epochs can be distinguished.
    blues = matplotlib.colormaps["Blues"]([0.35 + 0.6 * 0.75**later for later in range(len(parts) - 1)])
    colours = [style.VERMILLION, *blues]
    colour_of = dict(zip(parts, colours, strict=True))
    for table, shares, cosines in zip(tables, axes[::2], axes[1::2], strict=True):
        share = table.pivot(index="round", columns="part", values="share")
        colours = [colour_of[int(part)] for part in share]
        shares.stackplot(share.index, share.T.to_numpy(), colors=colours)
        for part, rows in table.groupby("part"):
            cosines.plot(rows["round"], rows["cosine_with_fed_sgd"], color=colour_of[int(part)], marker="o")
        for panel in (shares, cosines):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        shares.set(xlabel="round", ylabel="share of the update", title="shares")
        cosines.set(xlabel="round", ylabel="cosine with FedSGD's term", title="cosines")
    style.run_titles(axes[::2], runs)
    handles = [Patch(color=colour_of[part], label=part_name(part)) for part in parts]
    style.legend_below(figure, handles, columns=5)
    style.title(figure, "The terms of FedAvg's update of a cohort", runs)
    return figure


def part_name(part: int) -> str:
    """The name of a part of FedAvg's update: 0 is FedSGD's term, n is FOMAML's terms of the n-th local epoch."""
    return "FedSGD" if part == 0 else f"FOMAML, epoch {part:.0f}"


if __name__ == "__main__":
    command_line.run_plot_script("decomposition", plot)
