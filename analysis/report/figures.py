"""Interactive figures of configurations, as Plotly figures: over rounds, epochs, settings and ranks.

Each function takes configurations (`configurations.of(runs)`) and returns a `plotly.graph_objects.Figure`. It raises
NotRecordedError if no run has the records. A trace's `meta` has its configuration (`choice`), which a reader can
choose, and its `kind`: initial or personalized accuracy.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from analysis import decomposition, names, run_labels
from analysis import runs as runs_lib
from analysis.report import configurations as configurations_lib
from analysis.report import look
from tff_personalization.records import places

Configurations = Sequence[configurations_lib.Configuration]


def learning_curves(configurations: Configurations) -> go.Figure:
    """Initial and personalized accuracy by round: the mean over seeds, and each seed as a thin line."""
    figure = look.figure("communication round", look.ACCURACY)
    switches: dict[float, str] = {}
    for number, configuration in enumerate(configurations):
        evaluated = _evaluated(configuration)
        curves = {run.config["seed"]: table.set_index("round") for run, table in evaluated}
        for run, _ in evaluated[:1]:
            switches |= {first - 0.5: stage for first, stage in runs_lib.stage_switches(run)}
        for kind in look.KINDS if curves else ():
            column = f"{kind}_accuracy"
            by_seed = pd.concat({seed: curve[column] for seed, curve in curves.items()}, axis=1)
            for seed in by_seed if len(curves) > 1 else ():
                _line(figure, number, configuration.label, kind, by_seed[seed], width=0.8, opacity=0.4, seed=seed)
            mean = by_seed.dropna().mean(axis=1)
            sd = by_seed.dropna().std(axis=1, ddof=1)
            _line(figure, number, configuration.label, kind, mean, sd, markers=True)
    _refuse_empty(figure, "no run was evaluated between rounds")
    if len(configurations) == 1:
        _name_kinds(figure)
    _mark_stages(figure, switches)
    return figure


def matched_initial(configurations: Configurations) -> go.Figure:
    """Personalized against initial accuracy in training. At the same initial accuracy, better is easier to adapt."""
    figure = look.figure(f"initial {look.ACCURACY}", f"personalized {look.ACCURACY}")
    for number, configuration in enumerate(configurations):
        for run, table in _evaluated(configuration):
            figure.add_scatter(
                x=look.rounded(table["initial_accuracy"]),
                y=look.rounded(table["personalized_accuracy"]),
                mode="lines+markers",
                name=look.escaped(configuration.label),
                text=[f"round {number:.0f}, seed {run.config['seed']}" for number in table["round"]],
                hovertemplate="%{text}<br>initial %{x:.3f}<br>personalized %{y:.3f}",
                line={"color": look.colour(number), "width": 1.2},
                marker={"symbol": look.symbol(number), "size": 6},
                meta={"choice": configuration.label},
            )
    _refuse_empty(figure, "no run was evaluated between rounds")
    places = [x for trace in figure.data for x in trace.x]
    diagonal(figure, min(places), max(places))
    return figure


def personalization_curves(configurations: Configurations) -> go.Figure:
    """Accuracy of test clients by personalization epoch, after the last round, for every strategy: mean over seeds."""
    figure = look.figure("personalization epoch", look.ACCURACY)
    figure.update_xaxes(dtick=1)
    number = int(len(configurations) == 1)  # with one run, the main strategy has the colour of personalized accuracy
    finals = [
        configuration.recorded(lambda run: runs_lib.final_evaluation(run).assign(seed=run.config["seed"]))
        for configuration in configurations
    ]
    several = len({name for found in finals for table in found for name in table["strategy"]}) > 1
    for configuration, found in zip(configurations, finals, strict=True):
        for strategy, rows in pd.concat(found).groupby("strategy", sort=False) if found else ():
            by_epoch = rows.pivot(index="epoch", columns="seed", values="accuracy_mean").dropna()
            of = [] if several and len(configurations) == 1 else [configuration.label]
            label = " · ".join([*of, names.strategy(strategy)] if several else of)
            _mean_line(figure, number, label, by_epoch)
            number += 1
    _refuse_empty(figure, "no run has a final evaluation of test clients")
    return figure


def k_shot(configurations: Configurations) -> go.Figure:
    """Personalized accuracy by each client's number of train examples, main strategy: the mean over seeds."""
    figure = look.figure("train examples of the client, at most", f"personalized {look.ACCURACY}")
    figure.update_xaxes(type="category")
    for number, configuration in enumerate(configurations):
        if found := configuration.recorded(lambda run: _of_main(run, run.k_shot).set_index("examples")):
            by_seed = pd.concat([table["accuracy_mean"] for table in found], axis=1)
            _mean_line(figure, number, configuration.label, by_seed)
    _refuse_empty(figure, "no run was evaluated with fewer examples (k_shot.csv)")
    counts = {examples for trace in figure.data for examples in trace.x}
    ascending = sorted(counts, key=lambda examples: math.inf if examples == "all" else float(examples))
    figure.update_xaxes(categoryorder="array", categoryarray=ascending)
    return figure


def learning_rates(configurations: Configurations) -> go.Figure:
    """Accuracy of validation clients by personalization learning rate, main strategy, after all epochs."""
    figure = look.figure("personalization learning rate", f"personalized {look.ACCURACY}")
    figure.update_xaxes(type="log")
    for number, configuration in enumerate(configurations):
        if found := configuration.recorded(lambda run: _of_main(run, run.choice).dropna(subset=["learning_rate"])):
            by_seed = pd.concat([table.set_index("learning_rate")["accuracy_mean"] for table in found], axis=1)
            _mean_line(figure, number, configuration.label, by_seed.sort_index())
    if not any(len(trace.x) > 1 for trace in figure.data):
        raise runs_lib.NotRecordedError("no run was evaluated with several personalization learning rates (choice.csv)")
    rates = sorted({rate for trace in figure.data for rate in trace.x})
    figure.update_xaxes(tickvals=rates, ticktext=[f"{rate:g}" for rate in rates])
    return figure


def by_setting(flag: str, title: str) -> Callable[[Configurations], go.Figure]:
    """Makes a figure of initial and personalized accuracy by a flag's value; other differences get separate lines.

    Args:
        flag: its name on the command line; its values are numbers.
        title: the title of the axis.
    """

    def draw(configurations: Configurations) -> go.Figure:
        figure = look.figure(title, look.ACCURACY)
        table = configurations_lib.over_seeds(configurations)
        table[flag] = places.numbers([str(configuration.setting(flag)) for configuration in configurations])
        table["others"] = [_without(configuration, flag) for configuration in configurations]
        if table[flag].nunique() < 2:
            raise runs_lib.NotRecordedError(f"all runs have the same value of --{flag}")
        for number, (others, rows) in enumerate(table.groupby("others", sort=False)):
            rows = rows.sort_values(flag).set_index(flag)
            for kind in look.KINDS:
                column = f"{kind}_accuracy"
                _line(figure, number, str(others), kind, rows[column], rows[f"{column}_sd"], markers=True)
        return figure

    return draw


def ranking(configurations: Configurations) -> go.Figure:
    """Each configuration's initial against its personalized accuracy, over seeds. Hovering shows the ranks."""
    if len(configurations) < 2:
        raise runs_lib.NotRecordedError("there is only one configuration, so there are no ranks")
    figure = look.figure(f"initial {look.ACCURACY}", f"personalized {look.ACCURACY}")
    table = configurations_lib.over_seeds(configurations)
    ascending = not configurations[0].first.metric.higher_is_better
    ranks = {kind: table[f"{kind}_accuracy"].rank(ascending=ascending, method="min") for kind in look.KINDS}
    for number, row in table.iterrows():
        place = int(str(number))
        texts = [f"rank {ranks[kind][number]:.0f} by {kind} accuracy" for kind in look.KINDS]
        errors = {
            f"error_{axis}": {"type": "data", "array": look.rounded([row[f"{kind}_accuracy_sd"]])}
            for axis, kind in zip("xy", look.KINDS, strict=True)
        }
        figure.add_scatter(
            x=look.rounded([row["initial_accuracy"]]),
            y=look.rounded([row["personalized_accuracy"]]),
            mode="markers",
            name=look.escaped(row["configuration"]),
            text=["<br>".join(texts)],
            hovertemplate="initial %{x:.4f}<br>personalized %{y:.4f}<br>%{text}",
            marker={"color": look.colour(place), "symbol": look.symbol(place), "size": 11},
            meta={"choice": row["configuration"]},
            **errors,
        )
    return figure


def decomposition_by_round(configurations: Configurations) -> go.Figure:
    """The share of each part of a cohort's mean FedAvg update, by round: FedSGD's term and each epoch's."""
    figure = look.figure("round", "share of the cohort's update")
    for label, table in _decompositions(configurations).items():
        shares = table[table["level"] == "cohort"].groupby(["part", "round"])["share"].mean()
        for part in map(int, shares.index.unique("part")):
            figure.add_scatter(
                x=look.rounded(shares[part].index),
                y=look.rounded(shares[part]),
                mode="lines+markers",
                name=decomposition.part_name(part),
                line={"color": _part_colour(part)},
                marker={"symbol": look.symbol(part)},
                hovertemplate=f"{look.escaped(label)}<br>round %{{x}}: %{{y:.3f}}",
                meta={"choice": label},
            )
    return figure


def decomposition_by_epochs(configurations: Configurations) -> go.Figure:
    """The share of each part in the update after the last kept round, for each configuration, at both levels."""
    figure = look.figure("", "share of the update", barmode="relative")
    figure.update_xaxes(tickangle=0)
    tables = _decompositions(configurations)
    last = {label: table[table["round"] == table["round"].max()] for label, table in tables.items()}
    parts = sorted({int(part) for table in last.values() for part in table["part"]})
    for part in parts:
        shares = {
            (look.escaped(label), str(level)): rows.loc[rows["part"] == part, "share"].mean()
            for label, table in last.items()
            for level, rows in table.groupby("level")
        }
        figure.add_bar(
            x=[list(names) for names in zip(*shares, strict=True)],
            y=look.rounded(shares.values()),
            name=decomposition.part_name(part),
            marker={"color": _part_colour(part)},
            hovertemplate="%{x}: %{y:.3f}",
        )
    return figure


def _decompositions(configurations: Configurations) -> dict[str, pd.DataFrame]:
    found = {
        configuration.label: configuration.recorded(lambda run: run.decomposition) for configuration in configurations
    }
    tables = {label: pd.concat(several) for label, several in found.items() if several}
    if not tables:
        raise runs_lib.NotRecordedError("no run was decomposed (decomposition.csv)")
    return tables


def _part_colour(part: int) -> str:
    """Vermillion for FedSGD's term; blues for the epochs, paler for later ones, readable on light and dark."""
    return "#D55E00" if part == 0 else f"hsl(204, 80%, {80 - 46 * 0.75 ** (part - 1):.0f}%)"


def _evaluated(configuration: configurations_lib.Configuration) -> list[tuple[runs_lib.Run, pd.DataFrame]]:
    """The runs that have evaluated rounds, with these."""
    return configuration.recorded(lambda run: (run, runs_lib.evaluated_rounds(run)))


def _of_main(run: runs_lib.Run, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that are of the run's main strategy after all epochs."""
    return table[(table["strategy"] == run.summary["strategy"]) & (table["epoch"] == table["epoch"].max())]


def _mean_line(figure: go.Figure, number: int, label: str, by_seed: pd.DataFrame) -> None:
    """Adds a configuration's line: the mean over seeds, with their standard deviation."""
    _line(figure, number, label, None, by_seed.mean(axis=1), by_seed.std(axis=1, ddof=1), markers=True)


def _line(
    figure: go.Figure,
    number: int,
    label: str,
    kind: str | None,
    values: pd.Series,
    sd: pd.Series | None = None,
    *,
    markers: bool = False,
    width: float = 2,
    opacity: float = 1,
    seed: int | None = None,
) -> None:
    """Adds a configuration's line: `values` by x, with error bars if `sd` has them, of one seed or over seeds."""
    error: dict[str, Any] = {}
    if sd is not None and sd.notna().any():
        error = {"error_y": {"type": "data", "array": look.rounded(sd), "thickness": 1, "width": 2}}
    what = (f" {kind}" if kind else "") + ("" if seed is None else f", seed {seed}")
    places = list(values.index) if values.index.dtype == object else look.rounded(values.index)
    figure.add_scatter(
        x=places,
        y=look.rounded(values),
        mode="lines+markers" if markers else "lines",
        name=look.escaped(label) + what,
        line={"color": look.colour(number), "dash": look.DASHES[kind] if kind else "solid", "width": width},
        marker={"symbol": look.symbol(number), "size": 6},
        opacity=opacity,
        hovertemplate=None if seed is None else "one seed: %{y:.4f}",
        yhoverformat=".4f",
        meta={"choice": label, "kind": kind},
        **error,
    )


def diagonal(figure: go.Figure, low: float, high: float) -> None:
    """A dotted line where personalized accuracy equals initial accuracy, from one accuracy to another."""
    ends, line = [low, high], {"color": look.COLOURS[-1], "dash": "dot", "width": 1}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", name="no gain")


def _name_kinds(figure: go.Figure) -> None:
    """If there is one configuration, its lines get the names and colours of initial and personalized accuracy."""
    for trace in figure.data:
        kind = trace.meta["kind"]
        trace.line.color = look.KIND_COLOURS[kind]
        if trace.mode == "lines+markers":
            place = {"x": trace.x[-1], "y": trace.y[-1], "xanchor": "right", "yanchor": "bottom", "yshift": 6}
            figure.add_annotation(text=kind, showarrow=False, font={"color": look.KIND_COLOURS[kind]}, **place)


def _mark_stages(figure: go.Figure, switches: Mapping[float, str]) -> None:
    """A vertical line at each place where a multi-stage method enters its next stage."""
    for place, stage in sorted(switches.items()):
        figure.add_vline(place, line={"dash": "dashdot", "width": 1, "color": look.COLOURS[-1]})
        figure.add_annotation(
            x=place,
            y=1,
            yref="paper",
            text=look.escaped(names.method(stage)),
            showarrow=False,
            xanchor="right",
            yanchor="top",
        )


def _without(configuration: configurations_lib.Configuration, flag: str) -> str:
    """The label without the part of one flag."""
    part = run_labels.setting(flag, configuration.setting(flag))
    others = " · ".join(word for word in configuration.label.split(" · ") if word != part)
    return others or names.method(configuration.first.config["method"])


def _refuse_empty(figure: go.Figure, reason: str) -> None:
    if not figure.data:
        raise runs_lib.NotRecordedError(reason)
