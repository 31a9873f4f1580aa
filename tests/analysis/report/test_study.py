"""What is found in a study's folder."""

import pytest

from analysis.report import study as study_lib
from tests.analysis.report.conftest import write_experiment
from tff_personalization.errors import UserError


def test_experiments_come_in_the_order_of_the_paper_and_others_after_them(study):
    assert [experiment.name for experiment in study_lib.read(study).experiments] == ["table1", "fine_tuning", "my_own"]


def test_unfinished_runs_are_counted_and_passed_over(study):
    table_1 = study_lib.read(study).experiments[0]
    assert (len(table_1.runs), table_1.unfinished, table_1.planned) == (4, 1, 6)
    assert all(run.finished for run in table_1.runs)


def test_a_run_is_called_by_its_place_in_the_study(study):
    found = study_lib.read(study)
    assert found.key(found.runs[0]) == "table1/E10_seed1"


def test_a_folder_of_runs_is_one_experiment(study):
    found = study_lib.read(study / "fine_tuning")
    assert [len(experiment.runs) for experiment in found.experiments] == [3]


def test_an_experiment_with_no_finished_run_among_others_is_no_mistake(tmp_path):
    write_experiment(tmp_path, "empty", {"begun": {"finished": False}})
    write_experiment(tmp_path, "full", {"done": {}})
    assert [len(experiment.runs) for experiment in study_lib.read(tmp_path).experiments] == [0, 1]


@pytest.mark.parametrize(
    ("record", "message"),
    [("{", "experiment.json: not valid JSON"), ("[]", "experiment.json: not a JSON object")],
    ids=["cut", "a list"],
)
def test_a_damaged_record_is_told_of(tmp_path, record, message):
    (write_experiment(tmp_path, "one", {"done": {}}) / "experiment.json").write_text(record)
    with pytest.raises(UserError, match=message):
        study_lib.read(tmp_path)


def test_a_folder_without_finished_runs_is_told_of(tmp_path):
    for folder, message in ((tmp_path / "absent", "no such folder"), (tmp_path, "no finished run")):
        with pytest.raises(UserError, match=message):
            study_lib.read(folder)
