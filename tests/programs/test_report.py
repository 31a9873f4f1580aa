"""The table at the end of a run."""

import json
import types

import pytest

from tests.analysis.conftest import write_run
from tff_personalization import errors
from tff_personalization.programs import report


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"rounds": 3', '{"rounds": 3}', '{"personalization_epochs": 3}']
)
def test_a_damaged_summary_is_one_line_and_nothing_is_printed(content, tmp_path, capsys):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(errors.UserError, match=r"summary\.json: damaged .* remove it"):
        report.print_report(types.SimpleNamespace(path=tmp_path))
    assert capsys.readouterr().out == ""


def test_figures_of_participants_without_test_examples_are_dashes(tmp_path, capsys):
    directory = write_run(tmp_path / "run", clients=10)
    path = directory / "summary.json"
    summary = json.loads(path.read_text())
    spread = {"mean": None, "sd": None}
    accuracies = {"initial_accuracy": spread, "personalized_accuracy": spread}
    participants = {"clients": 1, "strategies": {"fine_tune": {**accuracies, "gain": spread, "share_hurt": None}}}
    others = {"choice": None, "validation_round": None, "by_examples": {}, "participants": participants}
    path.write_text(json.dumps({**summary, **others}))
    config = types.SimpleNamespace(plots=False)
    report.print_report(types.SimpleNamespace(path=directory, experiment=types.SimpleNamespace(config=config)))
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "participants, fine-tuning" in line)
    assert row.split()[2:] == ["–", "±", "–", "–", "±", "–", "–", "–"]
