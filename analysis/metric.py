"""The name of the runs' metric: accuracy, or the task's name for it; see `outputs.Output.metric`.

The columns of records always call it accuracy. Tables, plots and pages use its name.
"""

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from analysis import runs as runs_lib
from tff_personalization.errors import UserError
from tff_personalization.records import run_records

if TYPE_CHECKING:  # Every run reads the metric's name, and few draw: these take half a second to import.
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

ACCURACY = run_records.ACCURACY
_WORD = re.compile(r"\b(accurac(?:y|ies)(?: \(fraction correct\))?)(?![\w/]|\.\w)", re.IGNORECASE)


def of(runs: Iterable[runs_lib.Run]) -> str:
    """The common metric of some runs; UserError if they have several."""
    first: dict[str, runs_lib.Run] = {}
    for run in runs:
        first.setdefault(run.metric, run)
    if len(first) > 1:
        (one, run), (other, other_run) = list(first.items())[:2]
        raise UserError(
            f"{run.directory} and {other_run.directory}: the first has the metric {one!r} and the second {other!r}; "
            "give runs with the same metric"
        )
    return next(iter(first), ACCURACY)


def named(text: str, metric: str) -> str:
    """A text about accuracy, with the name of another metric instead."""
    if metric == ACCURACY:
        return text
    return _WORD.sub(lambda found: metric[0].upper() + metric[1:] if found[0][0] == "A" else metric, text)


def name_in_plot(figure: "Figure", metric: str) -> None:
    """As `named`, for all texts in a plot."""
    from matplotlib.text import Text

    for text in figure.findobj(Text) if metric != ACCURACY else ():
        text.set_text(named(text.get_text(), metric))


def name_in_figure(figure: "go.Figure", metric: str) -> "go.Figure":
    """As `named`, for all texts in an interactive figure."""
    if metric == ACCURACY:
        return figure
    return type(figure)(json.loads(named(figure.to_json(), json.dumps(metric)[1:-1])))
