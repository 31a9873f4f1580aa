"""What plots, tables and pages say of the metric of runs: accuracy, or what their task names; see `metrics.Metric`.

Records call it accuracy in the names of their columns, whatever it is. So do the texts of the analysis, which are
changed here to the metric's name. Where a text speaks of a side that is better, it has one of `_SIDES`.
"""

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from analysis import runs as runs_lib
from tff_personalization import metrics
from tff_personalization.errors import UserError
from tff_personalization.metrics import Metric

if TYPE_CHECKING:  # Every run reads the metric's name, and few draw: these take half a second to import.
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

ACCURACY = metrics.ACCURACY
# Words of direction in texts: where a higher metric is better, and where a lower one is.
_SIDES = {
    "{Above}": ("Above", "Below"),
    "{below}": ("below", "above"),
    "{higher}": ("higher", "lower"),
    "{lowest}": ("lowest", "highest"),
}
_WORD = re.compile(r"\b(accurac(?:y|ies)(?: \(fraction correct\))?)(?![\w/]|\.\w)", re.IGNORECASE)


def of(runs: Iterable[runs_lib.Run]) -> Metric:
    """The metric that all of some runs have; UserError where they have several."""
    first: dict[Metric, runs_lib.Run] = {}
    for run in runs:
        first.setdefault(run.metric, run)
    if len(first) > 1:
        (one, run), (other, other_run) = list(first.items())[:2]
        raise UserError(
            f"{run.directory} and {other_run.directory}: the first has the metric {_said(one)} and the second "
            f"{_said(other)}; give runs with the same metric"
        )
    return next(iter(first), ACCURACY)


def _said(metric: Metric) -> str:
    """A metric in a message."""
    direction = "" if metric.higher_is_better else " (lower is better)"
    return f"{metric.name!r}{direction}"


def named(text: str, metric: Metric) -> str:
    """A text that speaks of accuracy, with the name of another metric in its place, and the sides that are better."""
    for word, sides in _SIDES.items():
        text = text.replace(word, sides[not metric.higher_is_better])
    return _renamed(text, metric.name)


def _renamed(text: str, name: str) -> str:
    if name == ACCURACY.name:
        return text
    return _WORD.sub(lambda found: name[0].upper() + name[1:] if found[0][0] == "A" else name, text)


def name_in_plot(figure: "Figure", metric: Metric) -> None:
    """Puts the metric's name into all texts of a plot."""
    from matplotlib.text import Text

    for text in figure.findobj(Text) if metric.name != ACCURACY.name else ():
        text.set_text(_renamed(text.get_text(), metric.name))


def name_in_figure(figure: "go.Figure", metric: Metric) -> "go.Figure":
    """Puts the metric's name into all texts of an interactive figure."""
    if metric.name == ACCURACY.name:
        return figure
    return type(figure)(json.loads(_renamed(figure.to_json(), json.dumps(metric.name)[1:-1])))
