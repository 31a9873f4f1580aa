"""Interactive figures that compare configurations: differences to a reference, and accuracy against bytes sent."""

import plotly.graph_objects as go

from analysis import compare_methods, method_differences, metric, style
from analysis import runs as runs_lib
from analysis.report import configurations as configurations_lib
from analysis.report import figures, look
from tff_personalization.errors import UserError

_SYMBOLS = {"^": "triangle-up", "v": "triangle-down", "s": "square", "o": "circle"}
_HEIGHT_OF_A_ROW = 32  # pixels, with its label above its mark


def differences(configurations: figures.Configurations) -> go.Figure:
    """Each method's and strategy's difference to FedAvg, or to the first method, with its interval."""
    runs = [run for configuration in configurations for run in configuration.runs]
    try:
        rows = method_differences.rows(compare_methods.reference_first(runs))
    except UserError as reason:  # other clients, other seeds
        raise runs_lib.NotRecordedError(str(reason)) from None
    side = "" if metric.of(runs).higher_is_better else ", positive is better"
    figure = look.figure(f"difference to {rows.attrs['reference']}{side}", "")
    margin = compare_methods.MARGIN * metric.of(runs).upper
    figure.add_vrect(-margin, margin, fillcolor=look.COLOURS[-1], opacity=0.15, line_width=0)
    figure.add_vline(0, line={"width": 1, "color": look.COLOURS[-1]})
    for verdict, (colour, marker) in method_differences.LOOKS.items():
        of_verdict = rows[rows["judged"] == verdict]
        if of_verdict.empty:
            continue
        few = verdict == compare_methods.FEW_SEEDS
        figure.add_scatter(
            x=look.rounded(of_verdict["difference"]),
            y=of_verdict["place"].tolist(),
            mode="markers",
            name=verdict,
            text=[
                f"{look.escaped(row['label'])}<br>{row['difference']:+.4f} [{row['difference_low']:+.4f}, "
                f"{row['difference_high']:+.4f}], {verdict}<br>initial {row['initial_accuracy']:.4f}, personalized "
                f"{row['personalized_accuracy']:.4f}<br>seeds {row['which_seeds']}"
                for _, row in of_verdict.iterrows()
            ],
            hovertemplate="%{text}<extra></extra>",
            error_x={
                "type": "data",
                "symmetric": False,
                "array": look.rounded(of_verdict["difference_high"] - of_verdict["difference"]),
                "arrayminus": look.rounded(of_verdict["difference"] - of_verdict["difference_low"]),
                "thickness": 1.5,
                "width": 0,
            },
            marker={
                "color": look.COLOURS[-1] if colour == style.DARK_GREY else colour,  # seen on a dark page too
                "symbol": f"{_SYMBOLS[marker]}-open" if few else _SYMBOLS[marker],
                "size": 8,
            },
        )
    figure.update_layout(
        height=_HEIGHT_OF_A_ROW * len(rows) + 150,
        showlegend=True,
        legend={"y": 1, "yanchor": "bottom", "x": 0},
        margin={"l": 12, "t": 64},
    )
    low, high = method_differences.limits(rows)
    for _, row in rows.iterrows():
        outside = "" if low <= row["difference"] <= high else f" ({row['difference']:+.3f})"
        figure.add_annotation(
            text=look.escaped(row["label"]) + outside,
            y=row["place"],
            yshift=11,
            xref="paper",
            x=0,
            xanchor="left",
            showarrow=False,
            font={"size": 11},
        )
    figure.update_xaxes(tickangle=0, nticks=6, range=(low, high))
    figure.update_yaxes(range=[-0.8, len(rows) - 0.2], showgrid=False, zeroline=False, showticklabels=False, ticks="")
    return figure


def by_bytes(configurations: figures.Configurations) -> go.Figure:
    """Personalized accuracy of test clients, main strategy, against the bytes that training sends both ways."""
    figure = look.figure("GB sent in training, down and up", f"personalized {look.ACCURACY}")
    table = configurations_lib.over_seeds(configurations)
    for number, row in enumerate(table.to_dict("records")):
        if row["bytes_sent"] != row["bytes_sent"]:
            continue
        figure.add_scatter(
            x=look.rounded([row["bytes_sent"] / 1e9]),
            y=look.rounded([row["personalized_accuracy"]]),
            error_y={"type": "data", "array": look.rounded([row["personalized_accuracy_sd"]])},
            mode="markers",
            name=look.escaped(row["configuration"]),
            hovertemplate="%{x:.3g} GB<br>personalized %{y:.4f}",
            marker={"color": look.colour(number), "symbol": look.symbol(number), "size": 11},
            meta={"choice": row["configuration"]},
        )
    if not figure.data:
        raise runs_lib.NotRecordedError("no run has bytes on record (communication in summary.json)")
    return figure
