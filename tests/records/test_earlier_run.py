"""Rounds taken over from another run: no result changes, and an unfit run is refused."""

import json
import shutil

import pandas as pd
import pytest
from absl import flags

from tests import processes
from tff_personalization import errors
from tff_personalization.experiment import config
from tff_personalization.programs import rounds
from tff_personalization.records import saved_models
from tff_personalization.sweeps import search

SHARED = {"rounds": 8, "rounds_per_model": 2, "personalization_epochs": 2}
TWO_STAGES = {**SHARED, "method": "personalized_fed_avg", "stage_2_round": 5, "local_steps": 3}


@pytest.fixture
def fed_avg(run_once):
    return run_once(**SHARED, method="fed_avg", run_name="fed_avg")


@pytest.mark.parametrize("more", [{}, {"validation_clients": 3}], ids=["", "with validation clients"])
def test_a_run_that_takes_its_first_stage_over_has_the_numbers_of_one_that_computes_it(run, run_once, more):
    earlier = run_once(**SHARED, **more, method="fed_avg", run_name="fed_avg")
    computed = run_once(**TWO_STAGES, **more, run_name="computed")
    taken_over = run(**TWO_STAGES, **more, run_name="taken_over", rounds_from=str(earlier))
    processes.assert_same_numbers(taken_over, computed)
    stages = pd.read_csv(taken_over / "metrics.csv")["stage"]
    assert list(stages) == ["fed_avg"] * 4 + ["reptile"] * 4
    origin = json.loads((taken_over / "config.json").read_text())["rounds_taken_over"]
    assert (origin["run_name"], origin["rounds"]) == ("fed_avg", 4)


def test_a_longer_run_serves_as_well_and_so_does_one_of_another_second_stage(run, run_once):
    earlier = run(**{**TWO_STAGES, "rounds": 10, "stage_2_round": 7, "local_steps": 2}, run_name="earlier")
    taken_over = run(**TWO_STAGES, run_name="taken_over", rounds_from=str(earlier))
    assert pd.read_csv(taken_over / "metrics.csv")["stage"].eq("reptile").sum() == 4
    processes.assert_same_numbers(taken_over, run_once(**TWO_STAGES, run_name="computed"))


@pytest.mark.parametrize("method", ["fed_avg", "ifca", "centralized"])
def test_all_rounds_are_reused_if_only_the_final_evaluation_differs(run, method, monkeypatch):
    clusters = {"clusters": 2} if method == "ifca" else {}
    first = "best_cluster" if method == "ifca" else "fine_tune"
    settings = {**SHARED, **clusters, "method": method, "validation_clients": 3, "strategies": [first]}
    at_the_end = {"personalization_examples": ["1", "all"]}
    if method == "fed_avg":
        choices = {"strategies": [first, "apfl"], "personalization_learning_rates": [0.01, 0.02]}
        at_the_end |= {**choices, "apfl_alpha": 0.3}
    earlier = run(**settings, run_name="earlier")
    computed = run(**settings | at_the_end, run_name="computed", rounds_from="none")
    monkeypatch.setattr(rounds, "train", None)
    taken_over = run(**settings | at_the_end, run_name="taken_over", rounds_from=str(earlier))
    processes.assert_same_numbers(taken_over, computed)
    times = json.loads((taken_over / "summary.json").read_text())["times"]  # only what this run did itself
    assert (times["train_seconds"], times["examples_per_second"]) == (0, None)
    assert times["wall_seconds"] == times["evaluation_seconds"] > 0


def test_it_resumes_without_the_earlier_run_once_it_has_a_checkpoint(run, run_once, fed_avg, stopped_after):
    with stopped_after(5):
        run(**TWO_STAGES, run_name="taken_over", rounds_from=str(fed_avg))
    shutil.rmtree(fed_avg)
    taken_over = run(**TWO_STAGES, run_name="taken_over", rounds_from=str(fed_avg))
    processes.assert_same_numbers(taken_over, run_once(**TWO_STAGES, run_name="computed"))


# Changes to the earlier run's record, further flags of the later one, the kept models, the message.
_MISFITS = [
    ({"seed": 2}, {}, None, r"its rounds were made differently \(seed: 2 there"),
    ({"local_epochs": 1}, {}, None, "local_epochs: 1 there, 2 here"),
    ({}, {"server_learning_rate": 0.5}, None, "made differently .server_learning_rate: 1.0 there, 0.5 here"),
    ({}, {"rounds_per_evaluation": 4}, None, "rounds_per_evaluation"),
    ({}, {"strategies": ["fine_tune_head"]}, None, "strategies"),
    ({}, {"evaluation_release": "aggregates"}, None, "evaluation_release: 'records' there, 'aggregates' here"),
    ({}, {}, {8}, "no model of round 4, only of 8: .*--rounds_per_model"),
    ({}, {"rounds_per_model": 1}, None, "no model of round 1, only of 2, 4, 6, 8: .*--rounds_per_model"),
    ({"rounds": 3}, {}, None, "has 3 of the 4 rounds"),
    ({"method": "fed_sgd"}, {}, None, "method: 'fed_sgd' there, 'personalized_fed_avg' here"),
]


def test_a_run_that_does_not_fit_is_refused_and_nothing_is_begun(run, tmp_path, fed_avg):
    config = json.loads((fed_avg / "config.json").read_text())
    for number, (there, here, kept, hint) in enumerate(_MISFITS):
        earlier = shutil.copytree(fed_avg, tmp_path / f"earlier{number}")
        (earlier / "config.json").write_text(json.dumps({**config, "flags": {**config["flags"], **there}}))
        if kept:
            saved_models.SavedModels(earlier / "models").keep(kept)
        with pytest.raises(errors.UserError, match=f"--rounds_from=.*{hint}"):
            run(**{**TWO_STAGES, **here}, run_name="later", rounds_from=str(earlier))
    assert not (tmp_path / "later").exists()


def test_a_damaged_or_missing_run_is_refused(run, tmp_path, fed_avg):
    def refused(match):
        with pytest.raises(errors.UserError, match=f"^--rounds_from=.*{match}"):
            run(**TWO_STAGES, run_name="later", rounds_from=str(fed_avg))

    config = json.loads((fed_avg / "config.json").read_text())
    (fed_avg / "config.json").write_text(json.dumps({**config, "data_sha256": "0"}))
    refused("other contents than --client_data")
    (fed_avg / "config.json").write_text(json.dumps(config))
    (fed_avg / "models" / "round_4.npz").write_bytes(b"no archive")
    refused("round_4.npz: damaged")
    (fed_avg / "metrics.csv").write_text("a,b\n1,2\n")
    refused("a record is damaged")
    (fed_avg / "summary.json").unlink()
    refused("unfinished run")
    (fed_avg / "config.json").write_text("{")
    refused("config.json: not valid JSON")
    shutil.rmtree(fed_avg)
    refused("no such directory")
    assert not (tmp_path / "later").exists()


def test_without_training_there_are_no_rounds_to_take_over(run, fed_avg):
    left_open = dict.fromkeys(("local_epochs", "rounds", "clients_per_round", "rounds_per_evaluation"))
    with pytest.raises(errors.UserError, match="--rounds_from has no effect with --method=local_only"):
        run(**left_open, method="local_only", rounds_from=str(fed_avg))


@pytest.mark.usefixtures("_forked_runs")
def test_runs_of_a_sweep_wait_for_what_an_earlier_one_will_have_and_take_it_over(by_writer_archive, tmp_path, capsys):
    (tmp_path / "two.toml").write_text(
        "[[runs]]\nmethod = 'fed_avg'\n[[runs]]\nmethod = 'personalized_fed_avg'\nstage_2_round = 5\n"
    )
    settings = {
        **SHARED,
        "client_data": by_writer_archive,
        "model": "linear",
        "strategies": "fine_tune",
        "clients_per_round": 3,
        "test_clients": 4,
        "rounds_per_evaluation": 4,
        "sweep": tmp_path / "two.toml",
        "sweep_runs_at_once": 2,
        "output_dir": tmp_path,
    }
    values = flags.FlagValues()
    config.define_flags(values)
    values(["run_experiment", *(config.argument(*item) for item in settings.items())])
    assert search.sweep_of(values).run()
    said = capsys.readouterr().err
    assert said.index("[1/2] finished") < said.index("[2/2] --method")
    configs = [json.loads(path.read_text()) for path in tmp_path.glob("two/*/config.json")]
    earlier = {config["run_name"] for config in configs if config["method"] == "fed_avg"}
    taken_over = {config["flags"]["stage_2_round"]: config.get("rounds_taken_over") for config in configs}
    assert {taken_over[5]["run_name"]} == earlier
