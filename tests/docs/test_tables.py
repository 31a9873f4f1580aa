"""The tables of the pages agree with their records."""

import json

import pandas as pd
import pytest

from analysis import claims, paper_claims, runs
from tests.docs import study_tables, tables
from tff_personalization import methods
from tff_personalization.experiment import config
from tff_personalization.personalization import strategies
from tff_personalization.records import places
from tff_personalization.tasks import federated_data


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_records(page):
    text = page.read_text(encoding="utf-8")
    assert "<!-- table: " in text
    assert text == tables.filled(text), "out of date; run: python -m tests.docs.tables"


@pytest.mark.parametrize("records", [study_tables.SMALL, study_tables.MEDIUM], ids=lambda path: path.stem)
def test_shared_verdicts_are_those_that_the_records_give(records):
    shared = places.read_json(places.place(records) / claims.FILE, ["verdicts"])["verdicts"]
    judged = json.loads(json.dumps(study_tables.judged(records)))
    assert shared == judged


def test_the_map_of_the_claims_has_their_whole_statements(monkeypatch):
    found = [
        {"id": of.id, "statement": of.statement, "synthetic": of.synthetic, "verdict": claims.UNDECIDED, "effect": 0.0}
        for of in paper_claims.CLAIMS
    ]
    monkeypatch.setattr(study_tables, "judged", lambda records: found)
    table = study_tables.claim_map()
    for claim in paper_claims.CLAIMS:
        if not claim.synthetic:
            assert f"| {claim.id} | {claim.statement} |" in table
    assert "| C3.6 | FedAvg's model is more personalizable than one of pooled SGD. |" in table


def test_the_data_of_make_run_is_that_of_its_record():
    experiment = config.from_settings({"flagfile": tables.DOCS.parent / "configs" / "quick.flags"})
    assert federated_data.load(experiment.config).sha256 == runs.read(tables.QUICK).config["data_sha256"]


def test_the_readme_counts_the_methods_and_strategies():
    counts = f"{len(methods.METHODS)} methods and {len(strategies.STRATEGIES)} personalization strategies"
    assert counts in " ".join((tables.DOCS.parent / "README.md").read_text(encoding="utf-8").split())


def test_a_fault_after_which_numbers_differ_is_seen(tmp_path, monkeypatch):
    rows = [
        {"kind": "SIGTERM", "moment": "training", "same_numbers": True, "ended": "143", "rounds_again": 0.0},
        {"kind": "SIGTERM", "moment": "training", "same_numbers": False, "ended": "goes on", "rounds_again": 2.0},
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "faults.csv", index=False)
    monkeypatch.setattr(tables, "RECORDS", tmp_path)
    lines = [line.strip("| ").split(" | ") for line in tables.faults().splitlines()]
    by_moment = {cells[0]: dict(zip(lines[0], cells, strict=True)) for cells in lines if len(cells) == len(lines[0])}
    assert by_moment["training"]["SIGTERM"] == by_moment["all"]["all"] == "1/2"
    assert by_moment["training"]["without a new start"] == "1"
    assert by_moment["training"]["lost"] == "2"
    assert by_moment["starting"]["SIGTERM"] == "–"
