"""What a run's training costs: visits of examples, and the bytes that clients receive, send and keep."""

import math
from typing import Any

from analysis import runs as runs_lib
from analysis import tables
from tff_personalization.errors import UserError

NAMES = ("visits", "bytes_down", "bytes_up", "bytes_kept", "bytes_sent")
WALL_TIME_NOTE = "Wall time: only of runs that reused no rounds."


def of(run: runs_lib.Run) -> dict[str, float]:
    """The costs of a finished run; NaN for what is not on record, as in runs of earlier versions.

    Returns:
        examples: visits (uses of an example) in local steps, by all clients in all rounds.
        visits: of examples in local steps and outside of them, by all clients in all rounds.
        bytes_down, bytes_up: received and sent by a client in a round, the mean over all clients and rounds.
        bytes_kept: of a client's state.
        bytes_sent: both ways, of all clients in all rounds.

    Raises:
        UserError: malformed records.
    """
    costs = dict.fromkeys(("examples", *NAMES), math.nan)
    trains = bool(run.summary["rounds"])
    if not trains:
        costs |= {"examples": 0.0, "visits": 0.0}
    elif "examples" in run.metrics:
        costs["examples"] = float(run.metrics["examples"].sum(skipna=False))
        if "extra_examples" in run.metrics:
            costs["visits"] = costs["examples"] + float(run.metrics["extra_examples"].sum(skipna=False))
    if "communication" in run.summary:
        down, up, kept = _recorded(run)
        clients = float(run.metrics["clients"].sum()) if trains else 0.0
        each = clients or math.nan
        costs |= {"bytes_down": down / each, "bytes_up": up / each, "bytes_kept": kept, "bytes_sent": down + up}
    return costs


def _recorded(run: runs_lib.Run) -> tuple[float, float, float]:
    """Bytes down and up in the whole run, and the largest state of a client in any stage."""
    record: Any = run.summary["communication"]
    try:
        totals = [math.nan if record[way] is None else float(record[way]) for way in ("down", "up")]
        kept = max((float(stage["kept"]) for stage in record["stages"].values()), default=0.0)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise UserError(
            f"{run.directory / 'summary.json'}: its communication is damaged: restore it, or repeat the run."
        ) from None
    return totals[0], totals[1], kept


def millions(value: float, unit: str) -> str:
    """A number of visits (unit "M") or of bytes ("MB"), in millions; a dash if it is not on record."""
    if math.isnan(value):
        return tables.MISSING
    form = ".2f" if value >= 1e4 or not value else ".2g"
    return f"{value / 1e6:{form}} {unit}"
