"""Reading and drawing verdicts."""

import json

import pytest

from analysis.report import verdicts
from tests.analysis.report.conftest import verdict
from tff_personalization.errors import UserError


def test_verdicts_are_read_in_order_and_none_if_a_study_is_not_judged(study, tmp_path):
    assert [v["id"] for v in verdicts.read(study)] == ["C2.1", "C2.2", "C3.1 (h = 0)", "C1.1"]
    assert verdicts.read(tmp_path) == []


def test_intervals_of_a_claim_and_metric_have_one_scale_with_no_effect_in_the_middle(study):
    first, second, of_another_claim, without = verdicts.read(study)
    widest = verdicts.interval(first, [first, second, of_another_claim])
    assert widest.zero == 50
    assert widest.high == pytest.approx(96)  # 0.02 is the farthest of the claim's from 0
    other = verdicts.interval(second, [first, second, of_another_claim])
    assert other.low == pytest.approx(50 - 46 * 0.003 / 0.02)
    assert verdicts.interval(of_another_claim, [first, second, of_another_claim]).low == pytest.approx(4)
    assert verdicts.interval(without, [first, without]) is None


def test_verdicts_are_grouped_by_claim_in_the_papers_order_and_counted_by_kind(study):
    found = verdicts.read(study)
    groups = verdicts.by_claim(found)
    assert list(groups) == ["C1", "C2", "C3"]
    assert [v["id"] for v in groups["C2"]] == ["C2.1", "C2.2"]
    assert {kind: count for kind, (_, _, count) in verdicts.counts(found).items()} == dict.fromkeys(
        ("supported", "not supported", "not decided by this data", "nothing to compare"), 1
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"verdicts\.json: damaged"),
        (json.dumps({"verdicts": [{"id": "C1.1"}]}), "no 'claim'"),
        (json.dumps({"verdicts": [verdict(verdict="perhaps")]}), "'perhaps' is none of"),
    ],
    ids=["cut", "without a field", "another verdict"],
)
def test_a_damaged_file_is_told_of(tmp_path, content, message):
    (tmp_path / "verdicts.json").write_text(content)
    with pytest.raises(UserError, match=message):
        verdicts.read(tmp_path)
