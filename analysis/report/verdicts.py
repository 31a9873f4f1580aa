"""Verdicts on the paper's claims, from the verdicts.json of `analysis.claims`, and their intervals as pictures."""

import json
import math
from typing import Any, NamedTuple

from analysis import claims as claims_lib
from tff_personalization.errors import UserError
from tff_personalization.records import places

# The claims of arXiv 1909.12488 by their names in the verdicts, and other statements of the paper.
CLAIMS = {
    "C1": "FedAvg can be read as a meta-learning algorithm: its update is FedSGD's term and FOMAML's terms.",
    "C2": "Careful fine-tuning (stage 2) gives a global model with higher initial accuracy that is at the same time "
    "easier to personalize; optimizing global accuracy alone gives weaker personalization.",
    "C3": "A model trained by standard datacenter (pooled) optimization is much harder to personalize than one from "
    "FedAvg.",
    "T1": "Table 1: what the cohort and the local epochs do.",
    "P": "Algorithm 2, step 3: personalize with the optimizer of training.",
    "W": "Who gains.",
    "S": "Server optimizers.",
    "L": "Shakespeare.",
    "X": "Exploratory: comparisons that were added after the results of the others were seen.",
}
# A verdict's class in the style sheet, and its sign, which needs no colour.
_LOOKS = {
    claims_lib.SUPPORTED: ("supported", "✓"),
    claims_lib.NOT_SUPPORTED: ("not-supported", "✗"),
    claims_lib.NO_DIFFERENCE: ("no-difference", "="),
    claims_lib.UNDECIDED: ("undecided", "?"),
    claims_lib.NO_RUNS: ("no-runs", "–"),
}
_TEXTS = ("id", "claim", "statement", "metric", "unit", "test", "verdict", "why", "experiment", "data")
_NUMBERS = ("effect", "low", "high")
_WIDTH = 100.0


Verdict = dict[str, Any]
"""A verdict as in `claims.judge`, with two more keys: `look`, its class in the style sheet, and `sign`, its character.

`chosen` is in words; "" if there is none. An effect or an end that is not finite is None.
"""


class Interval(NamedTuple):
    """Places on a scale from 0 to 100, for a picture: of no effect, of the effect, and of the ends of its interval."""

    zero: float
    effect: float
    low: float
    high: float


def read(directory: places.Place) -> list[Verdict]:
    """The verdicts of a study, in the file's order; empty if there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / claims_lib.FILE
    if not path.exists():
        return []
    try:
        return [_verdict(record) for record in json.loads(places.read_text(path))["verdicts"]]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{path}: damaged ({reason}); make it again with python -m analysis.claims {directory}"
        ) from None


def by_claim(found: list[Verdict]) -> dict[str, list[Verdict]]:
    """The verdicts by claim: claims in the order of `CLAIMS`, then others in the file's order."""
    claims = dict.fromkeys((*CLAIMS, *(verdict["claim"] for verdict in found)))
    groups = {claim: [verdict for verdict in found if verdict["claim"] == claim] for claim in claims}
    return {claim: group for claim, group in groups.items() if group}


def counts(found: list[Verdict]) -> dict[str, tuple[str, str, int]]:
    """The number of verdicts of each kind, with the kind's class in the style sheet and its sign."""
    numbers = {kind: sum(verdict["verdict"] == kind for verdict in found) for kind in _LOOKS}
    return {kind: (*_LOOKS[kind], number) for kind, number in numbers.items() if number}


def interval(verdict: Verdict, others: list[Verdict]) -> Interval | None:
    """The interval on the scale of the claim's verdicts about the same metric; None if it has no interval.

    Other claims may have far larger effects; on a common scale an interval would be a dot.
    """
    group = [other for other in others if all(other[name] == verdict[name] for name in ("claim", "metric"))]
    reach = max((abs(other[name]) for other in group for name in _NUMBERS if other[name] is not None), default=0.0)
    if any(verdict[name] is None for name in _NUMBERS) or not reach:
        return None

    def place(value: float) -> float:
        return round(_WIDTH * (0.5 + 0.46 * value / reach), 2)

    return Interval(place(0.0), *(place(verdict[name]) for name in _NUMBERS))


def _verdict(record: dict[str, Any]) -> Verdict:
    texts = {name: str(record[name] or "") for name in _TEXTS}
    if texts["verdict"] not in _LOOKS:
        raise ValueError(f"verdict {texts['verdict']!r} is none of {', '.join(_LOOKS)}")
    look, sign = _LOOKS[texts["verdict"]]
    return {
        **texts,
        **{name: _number(record.get(name)) for name in _NUMBERS},
        "runs": [str(run) for run in record.get("runs") or ()],
        "synthetic": bool(record["synthetic"]),
        "seeds": record.get("seeds"),
        "chosen": _chosen(record),
        "look": look,
        "sign": sign,
    }


def _chosen(record: dict[str, Any]) -> str:
    chosen = record.get("chosen")
    if not chosen:
        return ""
    if chosen["low"] is None:
        return f"{chosen['effect']:+.4f}, {chosen['verdict']}"
    return f"{chosen['effect']:+.4f} [{chosen['low']:+.4f}, {chosen['high']:+.4f}], {chosen['verdict']}"


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)
