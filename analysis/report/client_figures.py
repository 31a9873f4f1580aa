"""Interactive figures with a mark for each client, or with counts of clients, as Plotly figures; see `figures`.

A client's mark has its index in `layout.meta["clients"]`. Its rows have run, client, train examples, initial and
personalized accuracy from the records, which the page shows beside the figure.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import accuracy_distributions, gain_by_examples
from analysis import runs as runs_lib
from analysis.report import figures, look

# Beyond this number of marks, further seeds of a configuration add none: tens of thousands of marks are slow.
MOST_MARKS = 1_500
RunKey = Callable[[runs_lib.Run], str]


def distributions(configurations: figures.Configurations) -> go.Figure:
    """Histogram of accuracy over the test clients of all seeds, before and after personalization."""
    figure = look.figure(look.ACCURACY, "test clients", barmode="overlay", bargap=0)
    for configuration in configurations:
        for kind, colour in look.KIND_COLOURS.items():
            edges, counts = _summed(configuration.runs, kind)
            if not counts.sum():
                raise runs_lib.NotRecordedError("no test client has test examples")
            bars, heights = accuracy_distributions.merged(edges, counts)
            lows, highs, heights = (values[heights > 0] for values in (bars[:-1], bars[1:], heights))
            figure.add_bar(
                x=look.rounded((lows + highs) / 2),
                y=[int(height) for height in heights],
                width=look.rounded(highs - lows),
                name=f"{look.escaped(configuration.label)} {kind}",
                marker={"color": colour, "opacity": 0.5, "line": {"color": colour, "width": 1}},
                text=[f"{low:.2f} to {high:.2f}" for low, high in zip(lows, highs, strict=True)],
                textposition="none",
                hovertemplate=f"{kind} accuracy %{{text}}: %{{y}} clients<extra></extra>",
                meta={"choice": configuration.label, "kind": kind},
            )
    return figure


def before_after(configurations: figures.Configurations, key: RunKey = lambda run: run.name) -> go.Figure:
    """Each test client's two accuracies, joined by a line, ordered by initial accuracy."""
    figure = look.figure("test clients, by initial accuracy", look.ACCURACY)
    figure.update_xaxes(showticklabels=False, ticks="", showgrid=False, zeroline=False)
    _clients(figure, configurations, key, "place", "initial")
    marks, figure.data = figure.data, []
    gain = configurations[0].first.metric.gain
    for trace in marks:
        before, after = ([row[column] for row in trace.customdata] for column in (2, 3))
        for hurt, colour, name in ((False, "#A0A0A0", "gain"), (True, look.HURT, "hurt")):
            joined = [ends for ends in zip(trace.x, before, after, strict=True) if (gain(ends[1], ends[2]) < 0) == hurt]
            figure.add_scatter(
                x=[place for x, *_ in joined for place in (x, x, None)],
                y=[value for _, *both in joined for value in (*both, None)],
                mode="lines",
                line={"color": colour, "width": 3 if hurt else 1.5},
                hoverinfo="skip",
                name=name,
                meta=trace.meta,
            )
        for kind, values in zip(look.KINDS, (before, after), strict=True):
            made = figure.add_scatter(**{**trace.to_plotly_json(), "y": values, "name": kind}).data[-1]
            symbol = "circle" if kind == "initial" else "triangle-up"
            made.marker = {"color": look.KIND_COLOURS[kind], "symbol": symbol, "size": 8 if len(values) < 150 else 4}
            made.meta = {**trace.meta, "kind": kind}
    return figure


def cumulative(configurations: figures.Configurations) -> go.Figure:
    """Share of the test clients of all seeds below an accuracy, before and after. The last bin has its upper edge."""
    figure = look.figure(look.ACCURACY, "share of test clients below")
    for number, configuration in enumerate(configurations):
        for kind in look.KINDS:
            edges, counts = _summed(configuration.runs, kind)
            figure.add_scatter(
                x=look.rounded(edges),
                y=look.rounded(np.append(0, counts.cumsum()) / max(1, counts.sum())),
                mode="lines",
                line={"color": look.colour(number), "dash": look.DASHES[kind], "shape": "hv"},
                name=f"{look.escaped(configuration.label)} {kind}",
                text=[*(len(edges) - 1) * ["below"], "at or below"],
                hovertemplate="%{y:.1%} %{text} %{x:.2f}",
                meta={"choice": configuration.label, "kind": kind},
            )
    return figure


def client_scatter(configurations: figures.Configurations, key: RunKey = lambda run: run.name) -> go.Figure:
    """Each test client's accuracy before and after personalization. On the diagonal, nothing changes."""
    figure = look.figure(f"initial {look.ACCURACY}", f"personalized {look.ACCURACY}")
    _clients(figure, configurations, key, "initial", "personalized")
    figures.diagonal(figure, 0, configurations[0].first.metric.upper)
    return figure


def gains(configurations: figures.Configurations, key: RunKey = lambda run: run.name) -> go.Figure:
    """Each test client's gain against its number of train examples, and the mean of clients with similar numbers.

    A client that several seeds have is one client of its group, with its mean gain: its seeds are not independent.
    """
    figure = look.figure("train examples of the client", "gain in accuracy")
    tables = _clients(figure, configurations, key, "train_examples", "gain")
    figure.add_hline(0, line={"color": look.COLOURS[-1], "dash": "dot", "width": 1})
    numbers = {configuration.label: number for number, configuration in enumerate(configurations)}
    for label, table in tables.items():
        number = numbers[label]
        means = gain_by_examples.binned_gain(table.groupby(level="client")[["train_examples", "gain"]].mean())
        figure.add_scatter(
            x=look.rounded(means["train_examples"]),
            y=look.rounded(means["gain"]),
            error_y={"type": "data", "array": look.rounded(means["standard_error"])},
            mode="lines+markers",
            name=f"{look.escaped(label)}, mean",
            line={"color": look.colour(number), "width": 2.5},
            marker={"symbol": "square", "size": 9, "line": {"width": 1, "color": "white"}},
            text=[f"{clients} clients" for clients in means["clients"]],
            hovertemplate="%{text} with %{x:.0f} examples on average<br>mean gain %{y:+.3f}",
            meta={"choice": label},
        )
    return figure


def _clients(
    figure: go.Figure, configurations: figures.Configurations, key: RunKey, x: str, y: str
) -> dict[str, pd.DataFrame]:
    """Adds a mark for each client with records. Returns the tables of `Run.client_gains` of all runs, by label."""
    rows: list[list] = []
    tables = {}
    for number, configuration in enumerate(configurations):
        found = configuration.recorded(lambda run: run.client_gains().assign(run=key(run)))
        if not found:
            continue
        tables[configuration.label] = pd.concat(found)
        before = np.cumsum([0, *(len(of_run) for of_run in found[:-1])])
        table = pd.concat([of_run for of_run, marks in zip(found, before, strict=True) if marks < MOST_MARKS])
        ascending = table.reset_index().sort_values(["initial", "personalized"], kind="stable").index
        table["place"] = pd.Series(range(1, len(table) + 1), ascending).sort_index().to_numpy()
        first = len(rows)
        columns = ["run", "client", "train_examples", "initial", "personalized"]
        rows += table.reset_index()[columns].to_numpy().tolist()
        figure.add_scatter(
            x=look.rounded(table[x]),
            y=look.rounded(table[y]),
            mode="markers",
            name=look.escaped(configuration.label),
            text=[look.escaped(client) for client in table.index],
            customdata=[
                [place, *look.rounded(values)]
                for place, *values in zip(
                    range(first, len(rows)), *(table[column] for column in columns[2:]), table["gain"], strict=True
                )
            ],
            hovertemplate=(
                "<b>%{text}</b><br>%{customdata[1]} train examples<br>initial %{customdata[2]:.3f}, "
                "personalized %{customdata[3]:.3f} (%{customdata[4]:+.3f})"
            ),
            marker={"color": look.colour(number), "symbol": look.symbol(number), "size": 9, "opacity": 0.6},
            meta={"choice": configuration.label},
        )
    if not rows:
        raise runs_lib.NotRecordedError("no run has per-client records (clients.csv)")
    figure.update_layout(
        meta={"clients": rows, "metric": look.ACCURACY, "sign": configurations[0].first.metric.gain(0, 1)}
    )
    return tables


def _summed(runs: tuple[runs_lib.Run, ...], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Bin edges, and the counts of clients of all runs."""
    found = [accuracy_distributions.histogram(run, kind) for run in runs]
    return found[0][0], np.sum([counts for _, counts in found], axis=0)
