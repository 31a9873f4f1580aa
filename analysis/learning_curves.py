"""Initial and personalized accuracy against the communication round.

    python -m analysis.learning_curves RUN [RUN ...] [--output=FILE]

Colour and marker show the run; the line style shows initial (dashed) or personalized (solid) accuracy. A vertical line
marks the round in which a multi-stage method enters its next stage. Unfinished runs are drawn up to their last round.
"""

import collections
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis import command_line, metric, names, run_labels, style
from analysis import runs as runs_lib


@style.styled
def plot(runs: Sequence[runs_lib.Run]) -> Figure:
    """Draws metrics.csv of `runs`; NotRecordedError when a run was never evaluated."""
    figure, (axes,) = style.panels(1, 1, (6.5, 3.4))
    handles = []
    for number, (run, label) in enumerate(zip(runs, run_labels.of(runs), strict=True)):
        evaluated = runs_lib.evaluated_rounds(run)
        look: dict[str, Any] = {"color": _colour(number), "marker": style.MARKERS[number % len(style.MARKERS)]}
        every = max(1, len(evaluated) // 12)  # as many markers as can be distinguished
        for kind, own in style.KINDS.items():
            of_kind = own if len(runs) == 1 else {"linestyle": own["linestyle"]}
            axes.plot(evaluated["round"], evaluated[f"{kind}_accuracy"], **{**look, **of_kind}, markevery=every)
        handles.append(Line2D([], [], **look, label=label))
    _mark_stages(axes, runs)
    _mark_target(axes, runs)
    low, high = axes.get_ylim()
    axes.set(
        xlabel="communication round",
        ylabel=style.ACCURACY,
        xlim=(0, None),
        ylim=(max(low, 0.0), min(high, metric.of(runs).upper)),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if len(runs) == 1:
        last = evaluated.iloc[-1]
        ends = [(last["round"], last[f"{kind}_accuracy"], kind, own["color"]) for kind, own in style.KINDS.items()]
        style.label_lines(axes, ends)
    else:
        kinds = [Line2D([], [], color=style.GREY, ls=ls, label=f"{kind} accuracy") for kind, ls in style.LINES.items()]
        style.legend_below(figure, [*kinds, *handles], columns=2)
    style.title(figure, f"Accuracy by round, mean over {_who(runs)}", runs)
    return figure


def _colour(number: int) -> str:
    return style.COLOURS[number % len(style.COLOURS)]


def _who(runs: Sequence[runs_lib.Run]) -> str:
    """The clients of the evaluations between rounds, in words."""
    splits = set().union(*(run.evaluations["split"] for run in runs)) - {"test"}
    names = {"validation": "validation clients", "test_sample": "a fixed sample of test clients"}
    return " or ".join(names.get(split, split) for split in sorted(splits))


def _mark_stages(axes: Axes, runs: Sequence[runs_lib.Run]) -> None:
    """A vertical line between the last round of a stage and the first round of the next, with the next stage's name."""
    owners: dict[tuple[float, str], list[int]] = collections.defaultdict(list)
    for number, run in enumerate(runs):
        for first, stage in runs_lib.stage_switches(run):
            owners[first - 0.5, stage].append(number)
    for (switch, stage), numbers in owners.items():
        colour = _colour(numbers[0]) if len(numbers) == 1 < len(runs) else style.DARK_GREY
        axes.axvline(switch, color=colour, linestyle="-.", linewidth=1)
        axes.annotate(
            f"{names.method(stage)} from round {switch + 0.5:g}",
            (switch, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=8,
            color=colour,
        )


def _mark_target(axes: Axes, runs: Sequence[runs_lib.Run]) -> None:
    """A horizontal line at the target accuracy that the finished runs share."""
    targets = {run.summary["rounds_to_target"]["target_accuracy"] for run in runs if run.finished}
    if len(targets) == 1:
        (target,) = targets
        axes.axhline(target, color=style.GREY, linestyle=":", linewidth=1.2)
        axes.annotate(
            f"target {target:g}",
            (0.01, target),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            fontsize=8,
            color=style.DARK_GREY,
        )


if __name__ == "__main__":
    command_line.run_plot_script("learning_curves", plot)
