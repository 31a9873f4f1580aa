"""The verdicts of a study on the paper's claims (`paper_claims`).

    python -m analysis.claims DIR            # DIR: the study of `make paper`; writes DIR/verdicts.json

An effect is a mean over seeds of means over units (usually clients). Its interval contains a t interval over seeds and
a bootstrap of units by identity (`inference`). A claim says that an effect is above 0, and names a margin: a difference
within it does not matter. Holm's method corrects p-values for the comparisons that belong to one claim of the paper and
have enough seeds. The verdict, at 5 % after that correction, is

    supported                       the effect is above 0
    no difference that matters      it is within ± the margin
    not supported                   it is below the margin: too small to matter, or negative
    not decided by this data        none of these, or fewer than three seeds
    nothing to compare              the runs or records to compare are missing

    Effects are those of the last round. If the model of the round that was best on validation clients was evaluated
    too, `chosen` has the same comparison with these models, uncorrected. No round is ever chosen by test clients.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from analysis import claim_measures, command_line, compared_runs, inference, metric, study
from analysis import runs as runs_lib
from analysis.paper_claims import CLAIMS, Claim
from tff_personalization.errors import UserError
from tff_personalization.records import files, places

FILE = "verdicts.json"
LEVEL = 1 - inference.CONFIDENCE
SUPPORTED, NOT_SUPPORTED, NO_DIFFERENCE = "supported", "not supported", "no difference that matters"
UNDECIDED, NO_RUNS = "not decided by this data", "nothing to compare"


def judge(of: study.Study, claims: Sequence[Claim] = CLAIMS) -> list[dict[str, Any]]:
    """The verdicts on the claims whose experiments the study has.

    Returns:
        For each: id, claim, statement, metric, margin, unit, test, experiment; effect, low, high (None if unknown);
        verdict; why; before_correction (the verdict by the interval only); p (after correction; None if nothing is
        tested); seeds (their number); runs (names of the run directories); data; synthetic; missing (planned runs of
        the experiment that are not finished); and `chosen`: effect, low, high and verdict with the models of the rounds
        that validation clients choose, or None.
    """
    judged = [(claim, of.by_name[claim.experiment]) for claim in claims if claim.experiment in of.by_name]
    measured = [_measured(claim, experiment, False, of.directory) for claim, experiment in judged]
    estimates = [inference.estimate(found.values) if found.values else None for found in measured]
    raw = {
        place: _p_value(estimate, claim)
        for place, (estimate, found, (claim, _)) in enumerate(zip(estimates, measured, judged, strict=True))
        if estimate and not _undecidable(found, claim)
    }
    corrected, family_size = _corrected(raw, [claim.family for claim, _ in judged])
    verdicts = []
    for place, (claim, experiment) in enumerate(judged):
        found, estimate = measured[place], estimates[place]
        factor = corrected[place] / raw[place] if place in raw else 1.0
        word, why = _decided(estimate, found, claim, factor, family_size.get(place, 1))
        low, high = estimate.interval() if estimate else (None, None)
        verdicts.append(
            {
                "id": claim.id,
                "claim": claim.of_paper,
                "statement": claim.statement,
                "metric": claim.metric,
                "margin": claim.margin,
                "unit": claim.unit,
                "test": inference.TEST,
                "experiment": claim.experiment,
                "effect": estimate and estimate.effect,
                "low": low,
                "high": high,
                "verdict": word,
                "why": " ".join(filter(None, (why, compared_runs.still_changing(found.runs)))),
                "before_correction": _decided(estimate, found, claim)[0],
                "p": corrected.get(place),
                "seeds": found.seeds,
                "runs": sorted({run.name for run in found.runs}),
                "data": ", ".join(dict.fromkeys(run.source for run in found.runs)),
                "synthetic": any(run.config["synthetic"] for run in found.runs),
                "missing": list(experiment.missing),
                "chosen": _as_chosen(experiment, claim, of.directory) if estimate else None,
            }
        )
    return verdicts


def _corrected(raw: Mapping[int, float], families: Sequence[Any]) -> tuple[dict[int, float], dict[int, int]]:
    """p-values after Holm's correction within each family, by index, and the number of p-values in the family."""
    corrected: dict[int, float] = {}
    size: dict[int, int] = {}
    for family in set(families):
        members = {place: p for place, p in raw.items() if families[place] == family}
        corrected |= zip(members, inference.holm(list(members.values())), strict=True)
        size |= dict.fromkeys(members, len(members))
    return corrected, size


def _measured(
    claim: Claim, experiment: study.Experiment, chosen: bool, directory: places.Place
) -> claim_measures.Measured:
    """The values of a claim; none, with the reason, where a run lacks a record."""
    try:
        return claim.measure(experiment, chosen)
    except runs_lib.NotRecordedError as reason:
        return claim_measures.Measured([], missing=str(reason).replace(f"{directory}/", ""))


def _as_chosen(experiment: study.Experiment, claim: Claim, directory: places.Place) -> dict[str, Any] | None:
    found = _measured(claim, experiment, True, directory)
    if not found.values:
        return None
    estimate = inference.estimate(found.values)
    low, high = estimate.interval()
    return {"effect": estimate.effect, "low": low, "high": high, "verdict": _decided(estimate, found, claim)[0]}


def _p_value(estimate: inference.Estimate, claim: Claim) -> float:
    """The p-value of the best supported of the possible verdicts."""
    return min(estimate.p_above(0), estimate.p_below(claim.margin))


def _undecidable(found: claim_measures.Measured, claim: Claim) -> str:
    """Why any values could decide nothing; empty if they can decide."""
    few = f"Fewer than {claim.least_seeds} seeds decide nothing." if found.seeds < claim.least_seeds else ""
    return " ".join(filter(None, (few, found.undecided)))


def _decided(
    estimate: inference.Estimate | None,
    found: claim_measures.Measured,
    claim: Claim,
    factor: float = 1.0,
    family: int = 1,
) -> tuple[str, str]:
    """The verdict and its reason. p-values times `factor` are those after the correction for a family of claims."""
    if estimate is None:
        return NO_RUNS, found.missing
    note = f" {found.note}" if found.note else ""
    undecidable = _undecidable(found, claim)
    if undecidable:
        return UNDECIDED, undecidable + note
    margin, after = f"{claim.margin:g}", f" after correction for {family} claims" if family > 1 else ""
    tests = (
        (SUPPORTED, estimate.p_above(0), "above 0"),
        (NO_DIFFERENCE, estimate.p_within(claim.margin), f"within ±{margin}"),
        (NOT_SUPPORTED, estimate.p_below(claim.margin), f"below {margin}"),
    )
    for word, p, where in tests:
        if factor * p <= LEVEL:
            return word, f"The effect lies {where} (p = {factor * p:.2g}{after}).{note}"
    alone = next((where for _, p, where in tests if p <= LEVEL), "")
    if alone:
        return UNDECIDED, f"The interval is {alone}, but not{after}.{note}"
    return UNDECIDED, f"The interval contains 0 and reaches {margin} or more.{note}"


def contents(of: study.Study) -> dict[str, Any]:
    """The contents of verdicts.json for a study; UserError if its metric is not accuracy, as in the claims."""
    if (called := metric.of(of.runs)) != metric.ACCURACY:
        raise UserError(
            f"{of.directory}: these runs measure {called.name!r}, but the paper's claims are about accuracy: use "
            "analysis.compare_methods"
        )
    return {"verdicts": judge(of)}


def write(directory: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the verdicts on the study in `directory` to verdicts.json, whole or not at all, and returns its path."""
    if not study.is_study(directory):
        raise UserError(f"{directory}: no experiments in it; give the folder that make paper wrote")
    found = study.read(directory)
    if not isinstance(found.directory, pathlib.Path):
        raise UserError(
            f"{directory}: a zip file; to make its verdicts again, run python -m analysis.share_runs {directory} "
            "--to=FILE"
        )
    path = found.directory / FILE
    files.write_text(path, json.dumps(contents(found), indent=2) + "\n")
    return path


def lines(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each verdict, for a terminal."""
    found = []
    for v in verdicts:
        numbers = "" if v["low"] is None else f" {v['effect']:+.4f} [{v['low']:+.4f}, {v['high']:+.4f}]"
        data = " (synthetic data)" if v["synthetic"] else ""
        found.append(f"{v['id']:<16}{v['verdict']:<28}{numbers:<30}{v['statement']}{data}")
        if v.get("missing"):
            found.append(f"{'':<16}without {len(v['missing'])} runs that are not finished: {'; '.join(v['missing'])}")
    return found


def _main(arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        raise UserError("DIR: give one folder, as in python -m analysis.claims runs/paper-small")
    path = write(arguments[0])
    print("\n".join(lines(json.loads(path.read_bytes())["verdicts"])))
    print(path)


if __name__ == "__main__":
    command_line.run_script(_main)
