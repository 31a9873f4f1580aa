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


def printed_rows(directory, capsys, **changes):
    """The lines that the program prints of a run, some entries of whose summary are others."""
    path = directory / "summary.json"
    others = {"choice": None, "validation_round": None, "by_examples": {}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **others, **changes}))
    config = types.SimpleNamespace(plots=False)
    report.print_report(types.SimpleNamespace(path=directory, experiment=types.SimpleNamespace(config=config)))
    return capsys.readouterr().out.splitlines()


def test_figures_of_participants_without_test_examples_are_dashes(tmp_path, capsys):
    spread = {"mean": None, "sd": None}
    accuracies = {"initial_accuracy": spread, "personalized_accuracy": spread}
    participants = {"clients": 1, "strategies": {"fine_tune": {**accuracies, "gain": spread, "share_hurt": None}}}
    rows = printed_rows(write_run(tmp_path / "run", clients=10), capsys, participants=participants)
    (row,) = (line for line in rows if "participants, fine-tuning" in line)
    assert row.split()[2:] == ["–", "±", "–", "–", "±", "–", "–", "–"]


def test_large_figures_of_another_metric_stay_apart(tmp_path, capsys):
    spread = {"mean": 54321.0, "sd": 1234.5}
    figures = {"initial_accuracy": spread, "personalized_accuracy": spread, "gain": spread, "share_hurt": 0.5}
    rows = printed_rows(write_run(tmp_path / "run", clients=10), capsys, strategies={"fine_tune": figures})
    (row,) = (line for line in rows if line.startswith("  fine-tuning"))
    figure = ["54321.000", "±", "1234.500"]
    assert row.split() == ["fine-tuning", *figure, *figure, "+54321.000", "50%"]
