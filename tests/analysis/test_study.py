"""Studies: the runs of an experiment, and what is refused."""

import pytest

from analysis import study
from tff_personalization.errors import UserError


def test_an_experiment_has_its_finished_runs_by_seed_and_counts_the_others(make_study):
    directory = make_study(
        "table1",
        [
            ("", {"local_epochs": 2}, {"seed": 1}),
            ("", {"local_epochs": 2}, {"seed": 2}),
            ("", {"local_epochs": 5}, {"seed": 1}),
            ("", {"local_epochs": 5}, {"seed": 2, "finished": False}),
        ],
    )
    experiment = study.read(directory).by_name["table1"]
    assert (len(experiment.entries), experiment.unfinished, experiment.planned) == (3, 1, 4)
    assert [entry.seed for entry in experiment.matching(local_epochs=2)] == [1, 2]
    assert [entry.seed for entry in experiment.matching(local_epochs=5)] == [1]
    assert experiment.matching("FedAvg") == []
    assert len(experiment.matching("")) == 3


@pytest.mark.parametrize(
    "damage", [lambda record: "{", lambda record: "[]", lambda record: record.replace("label", "l")]
)
def test_a_damaged_record_is_reported(make_study, damage):
    path = make_study("table1", [("", {}, {})]) / "table1" / "experiment.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=r"experiment\.json: damaged"):
        study.read(path.parents[1])


def test_a_folder_without_finished_runs_is_reported(tmp_path, make_study):
    unfinished = make_study("table1", [("", {}, {"finished": False})])
    for folder, message in ((tmp_path / "absent", "no such folder"), (unfinished, "no finished run")):
        with pytest.raises(UserError, match=message):
            study.read(folder)


def test_a_folder_of_runs_is_one_experiment(make_study):
    directory = make_study("table1", [("", {}, {}), ("", {}, {"seed": 2, "finished": False})])
    (alone,) = study.read(directory / "runs").experiments
    assert (len(alone.entries), alone.unfinished, alone.planned) == (1, 1, None)


def test_a_run_is_called_by_its_place_in_the_study(make_study):
    found = study.read(make_study("table1", [("", {}, {})]))
    assert found.key(found.runs[0]) == "runs/table1_0"
