"""The look of interactive figures: the plots' palette, a light and a dark template, escaped hover texts."""

import html
from typing import Any

import plotly.graph_objects as go

from analysis import style

# The plots' palette without black, which is invisible on a dark page.
COLOURS = (*style.COLOURS[:-1], style.GREY)
HURT = style.PURPLE
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star", "triangle-left")
DASHES = {kind: {"--": "dash", "-": "solid"}[line] for kind, line in style.LINES.items()}
KINDS = tuple(style.KINDS)
KIND_COLOURS = {kind: own["color"] for kind, own in style.KINDS.items()}
ACCURACY = "accuracy"
HEIGHT = 400


def _template(ink: str, grid: str, background: str) -> dict[str, Any]:
    axis = {"gridcolor": grid, "linecolor": ink, "zerolinecolor": grid, "ticks": "outside", "automargin": True}
    axis |= {"title": {"standoff": 10}}
    return {
        "layout": {
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(COLOURS),
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": background, "bordercolor": ink, "font": {"color": ink}, "align": "left"},
            "margin": {"l": 64, "r": 12, "t": 28, "b": 56},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#8a8f98", "activecolor": ink},
            "hovermode": "closest",
        }
    }


LIGHT = _template("#1f2328", "#dfe3e8", "#ffffff")
DARK = _template("#e6e6e6", "#3a3f47", "#1b1e23")


def figure(x: str, y: str, **layout: Any) -> go.Figure:
    """An empty figure with titles on its axes."""
    made = go.Figure(layout={"template": LIGHT, "height": HEIGHT, "showlegend": False})
    made.update_xaxes(title_text=x)
    made.update_yaxes(title_text=y)
    return made.update_layout(**layout)


def colour(number: int) -> str:
    """The colour of the configuration of this number."""
    return COLOURS[number % len(COLOURS)]


def symbol(number: int) -> str:
    """The marker of the configuration of this number."""
    return SYMBOLS[number % len(SYMBOLS)]


def escaped(text: Any) -> str:
    """Escapes text from records for Plotly, which interprets some HTML in names and hover texts."""
    return html.escape(str(text), quote=False)


def rounded(values: Any) -> list[Any]:
    """Numbers for a page: six digits, None for missing ones."""
    return [None if value != value else float(f"{value:.6g}") for value in values]
