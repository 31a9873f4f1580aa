"""What a study says of the paper's claims: each is a comparison that was stated here before the runs were made.

    python -m analysis.claims DIR            # DIR: what `make paper` wrote; writes DIR/verdicts.json

An effect is a mean over seeds of means over units (clients, mostly), with a 95 % percentile bootstrap interval: seeds
are drawn with replacement, and of each its units. A claim says that an effect is above 0. The verdict is

    supported                   the interval lies above 0
    not supported               the interval lies below MARGIN, half a hundredth: no effect of a size that matters
    not decided by this data    neither, or too few values: three, or six where they are of seeds
    nothing to compare          what is compared has not been run, or was not recorded

Effects are those of the last round. Where the model of the round that was best on validation clients was judged too,
the same comparison with these models stands beside it (`chosen`). No test round is ever chosen.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from analysis import bootstrap, claim_measures, command_line, study
from tff_personalization.errors import UserError

MARGIN = 0.005
LEAST_VALUES = 3
LEAST_SEEDS = 6  # where seeds are the unit: an interval of fewer is hardly more than its least and greatest value
SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
UNDECIDED, NO_RUNS = "not decided by this data", "nothing to compare"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim as a comparison.

    Attributes:
        id: such as "C2.1".
        experiment: the experiment whose runs are compared.
        statement: what is claimed, in a sentence.
        metric: what the effect is a difference of.
        unit: what the interval's resamples draw.
        measure: the values whose mean is the effect, by seed; `(experiment, chosen) -> measure`.
        least_values: how many of them an interval takes.
    """

    id: str
    experiment: str
    statement: str
    metric: str
    unit: str
    measure: Callable[[study.Experiment, bool], claim_measures.Measured]
    least_values: int = LEAST_VALUES


_CLIENT = "client, nested in seed"
_FED_AVG, _PERSONALIZED_FED_AVG = {"label": "FedAvg"}, {"label": "Personalized FedAvg"}
_paired = claim_measures.paired

CLAIMS = (
    Claim(
        "T1.1",
        "table1",
        "Initial accuracy varies more from run to run than personalized accuracy.",
        "standard deviation over seeds, mean of settings (cohort and E): of initial less of personalized accuracy",
        "seed (jackknife)",
        claim_measures.spread_over_seeds,
        LEAST_SEEDS,
    ),
    Claim(
        "T1.2",
        "table1",
        "After as many rounds, more local epochs, up to 10, make the model more personalizable.",
        "personalized accuracy: with the largest E up to 10 less with the smallest",
        _CLIENT,
        claim_measures.more_local_epochs,
    ),
    Claim(
        "T1.3",
        "table1",
        "Personalized accuracy reaches the target in fewer rounds than initial accuracy.",
        "rounds to the target: of initial less of personalized accuracy, as a share of all rounds",
        "run, nested in seed",
        claim_measures.rounds_saved,
    ),
    Claim(
        "C1.1",
        "terms",
        "FOMAML's share of FedAvg's update grows with E.",
        "share of FOMAML's terms in updates from the same models: with the largest E less with the smallest",
        "model that was kept, nested in seed",
        claim_measures.share_of_fomaml,
    ),
    Claim(
        "C1.2",
        "terms",
        "After as many rounds at the same rates, FOMAML's terms alone train a more personalizable model than FedSGD's.",
        "personalized accuracy",
        _CLIENT,
        _paired({"label": "FOMAML's terms alone"}, {"label": "FedSGD's term alone"}, "personalized"),
    ),
    Claim(
        "C2.1",
        "fine_tuning",
        "Personalized FedAvg has a higher initial accuracy than FedAvg after as many rounds.",
        "initial accuracy",
        _CLIENT,
        _paired(_PERSONALIZED_FED_AVG, _FED_AVG, "initial"),
    ),
    Claim(
        "C2.2",
        "fine_tuning",
        "Personalized FedAvg has a higher personalized accuracy than FedAvg after as many rounds.",
        "personalized accuracy",
        _CLIENT,
        _paired(_PERSONALIZED_FED_AVG, _FED_AVG, "personalized"),
    ),
    Claim(
        "C2.3",
        "fine_tuning",
        "Choosing a model by initial accuracy alone gives weaker personalization.",
        "personalized accuracy: of the model that is best by personalized less of that best by initial accuracy, "
        "both on validation clients",
        _CLIENT,
        claim_measures.chosen_by_initial,
    ),
    Claim(
        "C3.1",
        "centralized",
        "After as many examples, FedAvg's model is more personalizable than one of pooled SGD.",
        "personalized accuracy",
        _CLIENT,
        _paired(_FED_AVG, {"label": "pooled SGD"}, "personalized"),
    ),
    Claim(
        "C3.2",
        "centralized",
        "After as many examples, FedAvg's model gains more than one of pooled SGD.",
        "gain",
        _CLIENT,
        _paired(_FED_AVG, {"label": "pooled SGD"}, "gain"),
    ),
    Claim(
        "C3.3",
        "centralized",
        "At the same initial accuracy, FedAvg's model is more personalizable than one of pooled SGD.",
        "personalized accuracy, of pooled SGD between the two rounds between which it has that initial accuracy",
        _CLIENT,
        claim_measures.at_matched_initial("FedAvg", "pooled SGD"),
    ),
    Claim(
        "C3.4",
        "centralized",
        "After as many examples, FedAvg's model is more personalizable than one of pooled Adam.",
        "personalized accuracy",
        _CLIENT,
        _paired(_FED_AVG, {"label": "pooled Adam"}, "personalized"),
    ),
    Claim(
        "C3.5",
        "centralized",
        "C3.1 holds with strategy, epoch and learning rate chosen on validation clients for each.",
        "personalized accuracy",
        _CLIENT,
        claim_measures.as_chosen("FedAvg", "pooled SGD"),
    ),
    *(
        Claim(
            f"C3.6 (h = {h:g})",
            "heterogeneity",
            f"Synthetic writers of heterogeneity {h:g}: FedAvg's model is more personalizable than one of pooled SGD.",
            "personalized accuracy",
            _CLIENT,
            _paired(
                {"label": "FedAvg", "writer_heterogeneity": h},
                {"label": "pooled SGD", "writer_heterogeneity": h},
                "personalized",
            ),
        )
        for h in (0.0, 0.5, 1.0, 2.0)
    ),
    Claim(
        "P.1",
        "personalization",
        "A model trained with SGD clients is better personalized with SGD than with Adam.",
        "personalized accuracy",
        _CLIENT,
        claim_measures.strategies("trained with SGD", "fine_tune", "fine_tune_adam", "personalized"),
    ),
    Claim(
        "P.2",
        "personalization",
        "A model trained with Adam clients is better personalized with Adam than with SGD.",
        "personalized accuracy",
        _CLIENT,
        claim_measures.strategies("trained with Adam", "fine_tune_adam", "fine_tune", "personalized"),
    ),
    Claim(
        "W.1",
        "who_gains",
        "Most clients gain from personalization.",
        "share of clients that gain, less a half",
        _CLIENT,
        claim_measures.most_gain,
    ),
    Claim(
        "W.2",
        "who_gains",
        "Clients with more examples gain more.",
        "gain: of the half of the clients with more train examples less of the other half",
        _CLIENT,
        claim_measures.more_examples,
    ),
    Claim(
        "W.3",
        "who_gains",
        "Early stopping on examples held back hurts fewer clients.",
        "share of clients hurt: without less with early stopping",
        _CLIENT,
        claim_measures.strategies("Personalized FedAvg", "fine_tune", "fine_tune_early_stopping", "hurt"),
    ),
    Claim(
        "S.1",
        "server_optimizers",
        "Server momentum makes FedAvg's model more personalizable after as many rounds.",
        "personalized accuracy",
        _CLIENT,
        _paired({"label": "momentum"}, {"label": "SGD"}, "personalized"),
    ),
    Claim(
        "L.1",
        "shakespeare",
        "Personalization raises accuracy on the lines of a role.",
        "gain",
        _CLIENT,
        claim_measures.gain({"label": "FedAvg"}),
    ),
)


def judge(of: study.Study, claims: Sequence[Claim] = CLAIMS) -> list[dict[str, Any]]:
    """The verdict on each claim whose experiment the study has; see `verdict`."""
    return [verdict(of.by_name[claim.experiment], claim) for claim in claims if claim.experiment in of.by_name]


def verdict(experiment: study.Experiment, claim: Claim) -> dict[str, Any]:
    """The verdict on a claim.

    Returns:
        id, claim, statement, metric, unit, test, experiment; effect, low, high (None if not to be had); verdict; why;
        seeds (their number); runs (names of the run directories); data; synthetic; and `chosen`: effect, low, high and
        verdict with the models of the rounds that validation clients choose, or None.
    """
    measured = claim.measure(experiment, False)
    effect, low, high, word, why = _judged(measured, claim.least_values)
    chosen = None
    if measured.values:
        at_chosen = claim.measure(experiment, True)
        if at_chosen.values:
            judged = _judged(at_chosen, claim.least_values)
            chosen = dict(zip(("effect", "low", "high", "verdict"), judged, strict=False))
    return {
        "id": claim.id,
        "claim": claim.id.split(".")[0],
        "statement": claim.statement,
        "metric": claim.metric,
        "unit": claim.unit,
        "test": f"{bootstrap.CONFIDENCE:.0%} percentile bootstrap, {bootstrap.RESAMPLES:,} resamples",
        "experiment": claim.experiment,
        "effect": effect,
        "low": low,
        "high": high,
        "verdict": word,
        "why": why,
        "seeds": measured.seeds,
        "runs": sorted({run.name for run in measured.runs}),
        "data": ", ".join(dict.fromkeys(run.source for run in measured.runs)),
        "synthetic": any(run.config["synthetic"] for run in measured.runs),
        "chosen": chosen,
    }


def _judged(
    measured: claim_measures.Measured, least_values: int
) -> tuple[float | None, float | None, float | None, str, str]:
    if not measured.values:
        return None, None, None, NO_RUNS, measured.missing
    effect = float(np.mean([values.mean() for values in measured.values]))
    if sum(map(len, measured.values)) < least_values:
        return effect, None, None, UNDECIDED, f"Fewer than {least_values} values: too few for an interval."
    low, high = bootstrap.interval(measured.values, np.random.default_rng(0))
    note = f" {measured.note}" if measured.note else ""
    if measured.seeds < 2:
        note += " One seed: how seeds differ is not in the interval."
    if measured.undecided:
        return effect, low, high, UNDECIDED, f"{measured.undecided}{note}"
    if low > 0:
        return effect, low, high, SUPPORTED, f"The interval lies above 0.{note}"
    if high < MARGIN:
        return effect, low, high, NOT_SUPPORTED, f"The interval lies below {MARGIN:g}.{note}"
    return effect, low, high, UNDECIDED, f"The interval holds 0 and {MARGIN:g} or more.{note}"


def contents(of: study.Study) -> dict[str, Any]:
    """What verdicts.json says of a study."""
    return {"margin": MARGIN, "verdicts": judge(of)}


def write(directory: str | os.PathLike[str]) -> pathlib.Path:
    """Judges the study in `directory`, writes verdicts.json into it, whole or not at all, and returns its path."""
    if not study.is_study(directory):
        raise UserError(f"{directory}: no experiments in it; give the folder that make paper wrote")
    found = study.read(directory)
    if not isinstance(found.directory, pathlib.Path):
        raise UserError(f"{directory}: a zip file; python -m analysis.share_runs {directory} --to=FILE judges it again")
    path = found.directory / "verdicts.json"
    temporary = path.with_suffix(".temp")
    temporary.write_text(json.dumps(contents(found), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def lines(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each verdict, for a terminal."""
    found = []
    for v in verdicts:
        numbers = "" if v["low"] is None else f" {v['effect']:+.4f} [{v['low']:+.4f}, {v['high']:+.4f}]"
        data = " (synthetic data)" if v["synthetic"] else ""
        found.append(f"{v['id']:<16}{v['verdict']:<25}{numbers:<30}{v['statement']}{data}")
    return found


def _main(arguments: Sequence[str]) -> None:
    (directory,) = command_line.positional(arguments, "DIR")
    path = write(directory)
    print("\n".join(lines(json.loads(path.read_text(encoding="utf-8"))["verdicts"])))
    print(path)


if __name__ == "__main__":
    command_line.run_script(_main)
