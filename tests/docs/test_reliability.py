"""The tables of the pages are those of the records beside them."""

import pandas as pd
import pytest

from tests.stress import tables


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_records(page):
    text = page.read_text(encoding="utf-8")
    assert "<!-- table: " in text
    assert text == tables.filled(text), "out of date; run: python -m tests.stress.tables"


def test_a_fault_after_which_numbers_differ_is_seen(tmp_path, monkeypatch):
    rows = [
        {"kind": "SIGTERM", "moment": "training", "same_numbers": True, "ended": "143", "rounds_again": 0.0},
        {"kind": "SIGTERM", "moment": "training", "same_numbers": False, "ended": "goes on", "rounds_again": 2.0},
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "faults.csv", index=False)
    monkeypatch.setattr(tables, "RECORDS", tmp_path)
    table = tables.faults().set_index("moment")
    assert table.loc["training", "SIGTERM"] == table.loc["all", "all"] == "1/2"
    assert table.loc["training", "without a new start"] == "1"
    assert table.loc["training", "lost"] == "2"
    assert table.loc["starting", "SIGTERM"] == "–"
