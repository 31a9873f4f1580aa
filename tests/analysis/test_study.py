"""Studies: which runs an experiment has, and what is refused."""

import json

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
    experiment = study.read(directory).experiments["table1"]
    assert (len(experiment.entries), experiment.planned) == (3, 4)
    assert sorted(experiment.select(local_epochs=2)) == [1, 2]
    assert sorted(experiment.select(local_epochs=5)) == [1]
    assert experiment.select("FedAvg") == {}
    with pytest.raises(ValueError, match="several runs of seed 1"):
        experiment.select("")


def test_what_is_no_study_or_damaged_is_refused(make_study, tmp_path):
    with pytest.raises(UserError, match="no study"):
        study.read(tmp_path)
    directory = make_study("table1", [("", {}, {})])
    path = directory / "table1" / "experiment.json"
    contents = json.loads(path.read_text())
    del contents["runs"][0]["label"]
    path.write_text(json.dumps(contents))
    with pytest.raises(UserError, match=r"experiment\.json: damaged"):
        study.read(directory)
