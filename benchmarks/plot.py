"""One picture of speed.csv, growth.csv and profile.csv from `make benchmark`.

    python -m benchmarks.plot [--output_dir=benchmark_results] [--speed=FILE …] [--output=FILE]

The three tables are read from --output_dir, unless they are named one by one. The picture is `performance.png` in the
same folder, unless --output says otherwise.
"""

import pathlib
import sys

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from analysis import style
from benchmarks import recording, speed
from tff_personalization import errors

# The contenders' names in the plot. Bounds, which are not alternatives, are hatched.
LABELS = {
    "ours": "ours",
    "keras": "ours, the network in Keras",
    "stock": "TFF's FedAvg, default context",
    "stock_with_settings": "TFF's FedAvg, our settings",
    "pytorch": "PyTorch, one process",
    "pytorch, processes": "PyTorch, a process a core",
    "pfl_research, processes": "pfl-research, a process a core",
    "fedjax": "FedJAX",
    "flower": "Flower with Ray",
    "raw": "bound: plain TensorFlow",
    "raw_fused": "bound: the same, parts fused by XLA",
    "gemm": "bound: matrix products",
}
BOUNDS = ("raw", "raw_fused", "gemm")
_NEEDED = {
    "speed": ("task", "contender", "per_second"),
    "growth": ("sweep", "clients", "local_epochs", "per_second", "python_mb", "worker_mb"),
    "profile": ("part", "milliseconds", "share"),
}


def read(path: pathlib.Path, name: str) -> pd.DataFrame:
    """The table `name` of the benchmarks; UserError if the file is missing or is another table."""
    try:
        table = pd.read_csv(path)
    except OSError as error:
        raise errors.UserError(f"{path} cannot be read ({error.strerror}): run `make benchmark` first.") from None
    except ValueError as error:  # pandas' errors of parsing are of this kind
        raise errors.UserError(f"{path} is not a table ({error}): run `make benchmark` again.") from None
    missing = [column for column in _NEEDED[name] if column not in table]
    if missing:
        raise errors.UserError(f"{path} has no column {missing[0]}: give the {name}.csv of `make benchmark`.")
    return table


@style.styled
def plot(speeds: pd.DataFrame, growth: pd.DataFrame, profile: pd.DataFrame) -> Figure:
    """The picture. A sweep that was left out leaves its panel empty."""
    figure = Figure(figsize=(9.0, 6.4))
    # Two rows with separate layouts, because the names in the upper row need more room.
    rows = figure.add_gridspec(2, 1, height_ratios=[1.2, 1])
    above, below = figure.add_subfigure(rows[0]), figure.add_subfigure(rows[1])
    relative_speed, parts = above.subplots(1, 2)
    by_cohort, memory, by_epochs = below.subplots(1, 3)
    _relative_speed(relative_speed, speeds[speeds["task"] == "training"])
    _profile(parts, profile)
    cohort = growth[growth["sweep"] == "cohort"].sort_values("clients")
    epochs = growth[growth["sweep"] == "local_epochs"].sort_values("local_epochs")
    _line(by_cohort, cohort["clients"], cohort["per_second"], "clients in the cohort")
    by_cohort.set(title="Speed and cohort", ylabel="examples/s")
    _line(memory, cohort["clients"], cohort["worker_mb"], "clients in the cohort", label="TFF's worker")
    _line(memory, cohort["clients"], cohort["python_mb"], "clients in the cohort", 1, label="Python")
    memory.set(title="Memory and cohort", ylabel="peak, resident (MB)")
    memory.legend()
    _line(by_epochs, epochs["local_epochs"], epochs["per_second"], "local epochs E")
    by_epochs.set(title="Speed and local epochs", ylabel="examples/s")
    return figure


def _relative_speed(axes: Axes, training: pd.DataFrame) -> None:
    """A bar for each contender of the task `training`: its median examples/s over ours."""
    relative = 1 / speed.summarize(training)["ours is × as fast"]
    order = [name for name in LABELS if name in relative.index]
    for place, name in enumerate(order):
        bound = name in BOUNDS
        colour = style.BLUE if name == "ours" else "white" if bound else style.SKY
        bar = axes.barh(place, relative[name], color=colour, edgecolor=style.DARK_GREY, hatch="///" if bound else None)
        axes.bar_label(bar, fmt="%.2f", padding=3, fontsize=8)
    axes.axvline(1, color=style.DARK_GREY, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(order)), [LABELS[name] for name in order])
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(title="Training speed, relative to ours", xlabel="examples/s over ours")


def _profile(axes: Axes, profile: pd.DataFrame) -> None:
    """A bar for each part of a round, with its milliseconds."""
    bars = axes.barh(profile["part"], 100 * profile["share"], color=style.BLUE, edgecolor=style.DARK_GREY)
    axes.bar_label(bars, [f"{milliseconds:,.0f} ms" for milliseconds in profile["milliseconds"]], padding=3, fontsize=8)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    title = f"Where a round's {profile['milliseconds'].sum() / 1000:.1f} s go"
    axes.set(title=title, xlabel="share of the round (%)")
    axes.set(xticks=range(0, 101, 25), xlim=(0, 125))


def _line(axes: Axes, x: pd.Series, y: pd.Series, xlabel: str, number: int = 0, label: str | None = None) -> None:
    """A line over an axis of x with logarithmic steps and the measured values as ticks, y from 0."""
    if x.empty:
        return
    axes.plot(x, y, color=style.COLOURS[number], marker=style.MARKERS[number], label=label)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{value:,}" for value in x], fontsize=7.5)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
    axes.set_xlabel(xlabel)


def main() -> int:
    parser = recording.parser(__doc__)
    for name in _NEEDED:
        parser.add_argument(f"--{name}", type=pathlib.Path, help=f"another table than {name}.csv in --output_dir")
    parser.add_argument("--output", type=pathlib.Path, help="another image (png, pdf, svg)")
    options = parser.parse_args()
    directory = options.output_dir
    try:
        tables = [read(getattr(options, name) or directory / f"{name}.csv", name) for name in _NEEDED]
        print(style.save(plot(*tables), options.output or directory / "performance.png"))
    except errors.UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
