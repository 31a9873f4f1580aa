"""Claims of a study whose runs lack a record, or clients in common."""

import json

import pandas as pd
import pytest

from analysis import claims, paper_claims, study
from tff_personalization.errors import UserError

(CLAIM,) = (claim for claim in paper_claims.CLAIMS if claim.id == "C2.1")


@pytest.fixture
def directory(make_study):
    """A study of two runs of one seed."""
    return make_study("fine_tuning", [("FedAvg", {}, {"seed": 1}), ("Personalized FedAvg", {}, {"seed": 1})])


def _verdict(directory):
    return claims.judge(study.read(directory), [CLAIM])[0]


def test_a_run_with_only_aggregates_leaves_its_claim_without_a_verdict_and_is_named(directory):
    (directory / "runs" / "fine_tuning_1" / "clients.csv").unlink()
    found = _verdict(directory)
    assert found["verdict"] == claims.NO_RUNS
    assert found["why"].startswith("runs/fine_tuning_1: no clients.csv, the run released only aggregates")
    assert json.loads(claims.write(directory).read_text())["verdicts"]


def test_runs_without_a_client_in_common_are_named(directory):
    path = directory / "runs" / "fine_tuning_1" / "clients.csv"
    table = pd.read_csv(path)
    table.assign(client="other " + table["client"]).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"fine_tuning_1 and .*fine_tuning_0: no test client in common; give runs"):
        _verdict(directory)
