"""`make paper`: shared runs, what is made once, a second start; and the project's own experiments."""

import json
import os
import pathlib

import pandas as pd
import pytest

from analysis import claims, compared_runs, paper_claims, study
from tff_personalization import errors
from tff_personalization.tools import paper

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """Two experiments that share a run; one decomposes updates and evaluates a matched round."""
    place = tmp_path / "experiments"
    place.mkdir()
    shared = {
        **{"model": "linear", "rounds": 4, "clients_per_round": 3, "test_clients": 3, "validation_clients": 2},
        **{"rounds_per_evaluation": 2, "rounds_per_model": 2, "personalization_epochs": 1, "strategies": "fine_tune"},
    }
    (place / "tiny.flags").write_text("".join(f"--{name}={value}\n" for name, value in shared.items()) + "--noplots\n")
    (place / "terms.toml").write_text(
        "[about]\norder = 2\ndecompose = 'FedAvg'\n[grid]\nlocal_epochs = [2]\n"
        "[[runs]]\nlabel = 'FedAvg'\nmethod = 'fed_avg'\n[scale.tiny]\n"
    )
    (place / "centralized.toml").write_text(
        "[about]\norder = 1\ntitle = 'Pooled'\nclaim = 'C3'\nmatch = 'FedAvg'\n[grid]\nlocal_epochs = [2]\n"
        "[[runs]]\nlabel = 'FedAvg'\nmethod = 'fed_avg'\n[[runs]]\nlabel = 'pooled SGD'\nmethod = 'centralized'\n"
        "[scale.tiny]\n"
    )
    return place


@pytest.mark.usefixtures("_forked_runs")
def test_experiments_share_runs_and_a_second_start_makes_none(folder, tmp_path, by_writer_archive, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"client_data": os.path.relpath(by_writer_archive), "output_dir": "."}
    made = paper.Paper(given, "tiny", [], folder)
    assert made.run()
    found = study.read(made.directory)
    assert list(found.by_name) == ["centralized", "terms"]
    assert len(list(made.directory.glob("runs/*/summary.json"))) == 2
    fed_avg, pooled = found.by_name["centralized"].entries
    assert found.by_name["terms"].entries[0].run.directory == fed_avg.run.directory
    assert set(fed_avg.run.decomposition["part"]) == {0, 1, 2}
    path = claims.write(made.directory)
    verdicts = {v["id"]: v for v in json.loads(path.read_text())["verdicts"]}
    assert verdicts["C3.5"]["effect"] is not None
    by_round = pd.read_csv(pooled.run.directory / "by_round.csv")
    matched = compared_runs.matched_rounds(pooled.run, fed_avg.run)
    assert matched
    assert set(matched) <= {4, *by_round["round"]}

    before = {file: file.stat().st_mtime_ns for file in made.directory.glob("runs/*/*.*")}
    monkeypatch.setattr(paper.Paper, "_tool", lambda *arguments: pytest.fail(f"made again: {arguments}"))
    assert paper.Paper(given, "tiny", [], folder).run()
    assert before == {file: file.stat().st_mtime_ns for file in made.directory.glob("runs/*/*.*")}


def test_a_seed_that_an_experiment_lacks_is_not_announced(folder, by_writer_archive, tmp_path, monkeypatch, capsys):
    terms = folder / "terms.toml"
    terms.write_text(terms.read_text().replace("[grid]", "[grid]\nseed = [2]"))
    monkeypatch.setattr(paper.sweep.Sweep, "start", lambda *_: None)
    given = {"client_data": str(by_writer_archive), "output_dir": str(tmp_path)}
    assert paper.Paper(given, "tiny", [], folder).run()
    announced = [line for line in capsys.readouterr().err.splitlines() if ", seed" in line]
    assert announced == ["Pooled (centralized), seed 1", "terms (terms), seed 2"]


@pytest.mark.parametrize("scale", ["smoke", "small", "medium", "paper"])
def test_the_experiments_of_the_project_are_sound_at_every_scale(scale, tmp_path):
    own = {"client_data": "mine.npz"} if scale in ("small", "medium") else {}
    made = paper.Paper({"output_dir": str(tmp_path), **own}, scale, [])
    of_scale = {
        path.stem for path in (ROOT / "configs" / "paper").glob("*.toml") if f"[scale.{scale}]" in path.read_text()
    }
    assert set(made.sweeps) == of_scale
    asked = {claim.experiment for claim in paper_claims.CLAIMS}
    assert (
        of_scale
        >= asked
        - {
            "smoke": {"quiet_fine_tuning", "early_rounds"},
            "small": {"quiet_fine_tuning", "early_rounds", "spread"},
            "medium": {"shakespeare"},
            "paper": {"quiet_fine_tuning", "early_rounds"},
        }[scale]
    )
    for sweep in made.sweeps.values():
        assert sweep.file.about.keys() >= {"order", "title", "paper", "claim", "question"}
        for run in sweep.runs if {"match", "match_examples"} & sweep.file.about.keys() else ():
            config = run.directory.experiment.config
            assert config.rounds_per_evaluation % config.rounds_per_model == 0  # any evaluated round may be matched
            assert config.rounds % config.rounds_per_evaluation == 0


def test_at_medium_all_seeds_have_the_same_clients_and_second_stages_that_are_chosen_from_differ():
    made = paper.Paper({"client_data": "mine.npz"}, "medium", ["table1", "fine_tuning"])
    configs = [run.directory.experiment.config for sweep in made.sweeps.values() for run in sweep.runs]
    assert {config.data_seed for config in configs} == {1}
    assert len({config.seed for config in configs}) == 6
    second = [run for run in made.sweeps["fine_tuning"].runs if run.label == "Personalized FedAvg"]
    assert len({run.directory.name for run in second}) == len(second) == 5 * 6


def test_given_client_data_takes_the_place_of_all_that_a_scale_says_of_data(tmp_path):
    made = paper.Paper({"client_data": "mine.npz", "output_dir": str(tmp_path)}, "smoke", ["table1", "heterogeneity"])
    sources = {
        name: {run.directory.experiment.config.client_data for run in sweep.runs} for name, sweep in made.sweeps.items()
    }
    assert sources == {"table1": {"mine.npz"}, "heterogeneity": {"handwriting"}}


@pytest.mark.parametrize(
    ("arguments", "hints"),
    [
        (["--scale=huge"], ["--scale=huge", "small"]),
        (["--experiments=tabel1"], ["tabel1", "table1"]),
        (["--rounds=many"], ["rounds", "many"]),
        (["more"], ["'more'", "--name=value"]),
        (["--seed=3"], ["--seed", "no effect"]),
    ],
)
def test_what_is_wrong_is_one_line(arguments, hints, capsys):
    own = dict(argument.split("=") for argument in arguments if argument.startswith(("--scale", "--experiments")))
    scale, names = own.get("--scale", "smoke"), list(filter(None, [own.get("--experiments")]))
    rest = [argument for argument in arguments if argument.partition("=")[0] not in own]
    with pytest.raises((errors.UserError, SystemExit)) as refusal:
        paper.Paper(paper.settings_of(rest), scale, names)
    said = str(refusal.value) if isinstance(refusal.value, errors.UserError) else capsys.readouterr().err
    assert all(hint in said for hint in hints), said
