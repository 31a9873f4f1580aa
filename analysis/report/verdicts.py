"""Verdicts on the paper's claims, from the verdicts.json of `analysis.claims`, and their intervals as pictures."""

import dataclasses
import json
import math
from typing import Any

from analysis import claims as claims_lib
from tff_personalization.errors import UserError
from tff_personalization.records import places

FILE = "verdicts.json"
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
}
# A verdict's class in the style sheet, and its sign, which needs no colour.
_LOOKS = {
    claims_lib.SUPPORTED: ("supported", "✓"),
    claims_lib.NOT_SUPPORTED: ("not-supported", "✗"),
    claims_lib.NO_DIFFERENCE: ("not-supported", "="),
    claims_lib.UNDECIDED: ("undecided", "?"),
    claims_lib.NO_RUNS: ("no-runs", "–"),
}
_TEXTS = ("id", "claim", "statement", "metric", "unit", "test", "verdict", "why", "experiment", "data")
_WIDTH = 100.0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A precise claim, and the verdict of the runs.

    Attributes:
        id: such as "C2.1".
        claim: such as "C2".
        statement: the comparison, as a sentence.
        metric: what is compared.
        unit: of the analysis, such as "client, nested in seed".
        test: how the interval is made.
        effect: the difference; None without runs.
        low: the lower end of its interval.
        high: the upper end.
        verdict: "supported", "not supported", "not decided by this data" or "nothing to compare".
        why: one line.
        experiment: the name of the experiment whose runs are compared.
        runs: their folders.
        data: their data.
        synthetic: whether the data is synthetic.
        seeds: the number of seeds.
        chosen: the same comparison with the models of the rounds that validation clients choose, in words; "" if there
            is none.
    """

    id: str
    claim: str
    statement: str
    metric: str
    unit: str
    test: str
    effect: float | None
    low: float | None
    high: float | None
    verdict: str
    why: str
    experiment: str
    runs: tuple[str, ...]
    data: str
    synthetic: bool
    seeds: int | None
    chosen: str

    @property
    def look(self) -> str:
        """Its class in the style sheet."""
        return _LOOKS[self.verdict][0]

    @property
    def sign(self) -> str:
        """The character of the verdict."""
        return _LOOKS[self.verdict][1]


@dataclasses.dataclass(frozen=True)
class Interval:
    """An effect and its interval on a scale from 0 to 100, for a picture.

    Attributes:
        zero: the place of no effect.
        effect: the place of the effect.
        low: the lower end.
        high: the upper end.
    """

    zero: float
    effect: float
    low: float
    high: float


def read(directory: places.Place) -> list[Verdict]:
    """The verdicts of a study, in the file's order; empty if there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / FILE
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
    claims = dict.fromkeys((*CLAIMS, *(verdict.claim for verdict in found)))
    groups = {claim: [verdict for verdict in found if verdict.claim == claim] for claim in claims}
    return {claim: group for claim, group in groups.items() if group}


def counts(found: list[Verdict]) -> dict[str, tuple[str, str, int]]:
    """The number of verdicts of each kind, with the kind's class in the style sheet and its sign."""
    numbers = {kind: sum(verdict.verdict == kind for verdict in found) for kind in _LOOKS}
    return {kind: (*_LOOKS[kind], number) for kind, number in numbers.items() if number}


def interval(verdict: Verdict, others: list[Verdict]) -> Interval | None:
    """The interval on the scale of the claim's verdicts about the same metric; None if it has no interval.

    Other claims may have far larger effects; on a common scale an interval would be a dot.
    """
    group = [other for other in others if (other.claim, other.metric) == (verdict.claim, verdict.metric)]
    ends = [end for other in group for end in (other.low, other.high, other.effect)]
    reach = max((abs(end) for end in ends if end is not None), default=0.0)
    if verdict.effect is None or verdict.low is None or verdict.high is None or not reach:
        return None

    def place(value: float) -> float:
        return round(_WIDTH * (0.5 + 0.46 * value / reach), 2)

    return Interval(place(0.0), place(verdict.effect), place(verdict.low), place(verdict.high))


def _verdict(record: dict[str, Any]) -> Verdict:
    values: dict[str, Any] = {name: str(record[name] or "") for name in _TEXTS}
    if values["verdict"] not in _LOOKS:
        raise ValueError(f"verdict {values['verdict']!r} is none of {', '.join(_LOOKS)}")
    values |= {name: _number(record.get(name)) for name in ("effect", "low", "high")}
    values["runs"] = tuple(str(run) for run in record.get("runs") or ())
    return Verdict(**values, synthetic=bool(record["synthetic"]), seeds=record.get("seeds"), chosen=_chosen(record))


def _chosen(record: dict[str, Any]) -> str:
    chosen = record.get("chosen")
    if not chosen:
        return ""
    if chosen["low"] is None:
        return f"{chosen['effect']:+.4f}, {chosen['verdict']}"
    return f"{chosen['effect']:+.4f} [{chosen['low']:+.4f}, {chosen['high']:+.4f}], {chosen['verdict']}"


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)
