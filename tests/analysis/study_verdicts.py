"""The verdict on one claim of a study that a test has made."""

import pandas as pd

from analysis import claims, paper_claims, study

CLAIMS = {claim.id: claim for claim in paper_claims.CLAIMS}


def judged(directory, name):
    """The verdict on a claim by its name."""
    experiment = study.read(directory).by_name[CLAIMS[name].experiment]
    return claims.judge(study.Study(directory, (experiment,)), [CLAIMS[name]])[0]


def give_validation_curve(run, curve):
    """Gives a run the same mean accuracy before and after personalization, by round, on validation clients."""
    rows = [("validation", "fine_tuning", e, 9, 0.0, 1.0) for e in (0, 5)]
    columns = ["split", "strategy", "epoch", "clients", "accuracy_q25", "accuracy_q75"]
    tables = [pd.DataFrame(rows, columns=columns).assign(round=r, accuracy_mean=a) for r, a in curve.items()]
    pd.concat(tables).to_csv(run / "evaluations.csv", index=False)
