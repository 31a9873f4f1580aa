"""The program itself, on small data: every method and source, its records, its refusals."""

import json
import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest
from absl import flags
from absl.testing import flagsaver

import run_experiment
from tests.tasks.sources import small_files
from tff_personalization import errors, methods
from tff_personalization.programs import config as config_lib


@pytest.fixture(scope="module", autouse=True)
def _parsed_flags():
    flags.FLAGS(["run_experiment"])


@pytest.fixture
def run(tmp_path, by_writer_archive):
    """Runs the program with small settings, and returns the run directory."""

    def run(**settings):
        small = {
            "client_data": str(by_writer_archive),
            "model": "linear",
            "rounds": 4,
            "clients_per_round": 3,
            "test_clients": 4,
            "local_epochs": 2,
            "personalization_epochs": 2,
            "rounds_per_evaluation": 2,
            "output_dir": str(tmp_path),
            "run_name": "run",
            "plots": False,
            **settings,
        }
        # A setting that the method does not read may not be given.
        small = {name: value for name, value in small.items() if value is not None}
        with flagsaver.flagsaver(**small):
            assert run_experiment.main(["run_experiment"]) == 0
        return tmp_path / small["run_name"]

    return run


def read(directory):
    summary = json.loads((directory / "summary.json").read_text())
    return summary, pd.read_csv(directory / "metrics.csv"), pd.read_csv(directory / "clients.csv")


# What each method must not be given, of the small settings above.
METHOD_SETTINGS = {
    "fed_avg": {},
    "reptile": {"local_epochs": None, "local_steps": 4},
    "personalized_fed_avg": {"local_steps": 4, "stage_2_round": 3},
    "fed_prox": {},
    "scaffold": {},
    "mime_lite": {},
    "fed_sgd": {"local_epochs": None},
    "centralized": {},
    "local_only": {"local_epochs": None, "rounds": None, "clients_per_round": None, "rounds_per_evaluation": None},
}


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_runs_and_leaves_its_records(run, method, capsys):
    directory = run(method=method, **METHOD_SETTINGS[method])
    summary = json.loads((directory / "summary.json").read_text())
    clients = pd.read_csv(directory / "clients.csv")
    strategies = methods.get(method).strategies
    assert set(clients.strategy) == set(strategies)
    assert clients.client.nunique() == summary["test_clients"] == 4
    assert len(clients) == 4 * len(strategies) * 3
    main = clients[clients.strategy == strategies[0]]
    for when, epoch in (("initial", 0), ("personalized", 2)):
        accuracy = main[main.epoch == epoch].accuracy
        assert summary[f"{when}_accuracy"]["mean"] == pytest.approx(accuracy.mean())
        assert summary[f"{when}_accuracy"]["sd"] == pytest.approx(accuracy.std(ddof=0))
    evaluations = pd.read_csv(directory / "evaluations.csv")
    final = evaluations[(evaluations.split == "test") & (evaluations.strategy == strategies[0])]
    assert final.accuracy_mean.tolist() == pytest.approx(main.groupby("epoch").accuracy.mean().tolist())
    if methods.get(method).trains:
        metrics = pd.read_csv(directory / "metrics.csv")
        assert metrics["round"].tolist() == [1, 2, 3, 4]
        assert metrics.initial_accuracy.notna().tolist() == [False, True, False, True]
        assert list((directory / "tensorboard").iterdir())
    assert strategies[0] in capsys.readouterr().out


def test_training_helps_and_personalization_helps_more(run):
    summary, metrics, _ = read(run(rounds=12, local_epochs=5))
    assert metrics.train_loss.iloc[-1] < 0.5 * metrics.train_loss.iloc[0]
    assert summary["initial_accuracy"]["mean"] > 0.6
    assert summary["personalized_accuracy"]["mean"] >= summary["initial_accuracy"]["mean"]


def test_the_second_stage_begins_where_the_first_ended_with_another_server_optimizer(run):
    _, metrics, _ = read(run(method="personalized_fed_avg", **METHOD_SETTINGS["personalized_fed_avg"]))
    assert metrics.stage.tolist() == ["fed_avg", "fed_avg", "reptile", "reptile"]
    # The model is handed over: the loss goes on falling from where it was, far below an untrained model's.
    assert metrics.train_loss[2] < metrics.train_loss[1] < metrics.train_loss[0]


def test_centralized_matches_fed_avg_in_examples_on_average(run):
    _, metrics, _ = read(run(method="centralized"))
    config = json.loads((run(method="centralized") / "config.json").read_text())
    assert config["clients"] == {"train": 8, "validation": 0, "test": 4}
    assert metrics.examples.nunique() == 1
    assert metrics.clients.tolist() == [1] * 4


def test_aggregates_give_the_summary_that_records_give_and_no_record_of_a_client(run):
    from_records, _, _ = read(run(run_name="records"))
    directory = run(run_name="aggregates", evaluation_release="aggregates")
    from_sums = json.loads((directory / "summary.json").read_text())
    assert not (directory / "clients.csv").exists()
    for when in ("initial", "personalized"):
        for figure in ("mean", "weighted_mean"):
            expected = from_records[f"{when}_accuracy"][figure]
            assert from_sums[f"{when}_accuracy"][figure] == pytest.approx(expected, abs=1e-6)
    assert from_sums["share_hurt"] == pytest.approx(from_records["share_hurt"])
    histograms = [pd.read_csv(directory.parent / name / "distribution.csv") for name in ("records", "aggregates")]
    pd.testing.assert_frame_equal(*histograms)


def test_validation_clients_are_judged_between_rounds_when_there_are_any(run):
    directory = run(validation_clients=2)
    evaluations = pd.read_csv(directory / "evaluations.csv")
    assert set(evaluations[evaluations.split == "validation"].clients) == {2}
    assert set(evaluations[evaluations.split == "test"].clients) == {2}


def sqlite_file(tmp_path):
    rows = small_files.sqlite_rows(clients=("a", "b", "c"), splits=("all_train", "all_test"))
    return small_files.write_sqlite(tmp_path / "emnist_all.sqlite", rows)


@pytest.mark.parametrize("source", ["digits", "handwriting", "sqlite", "tff"])
def test_every_source_runs(run, tmp_path, source):
    settings = {
        "digits": {"client_data": "digits", "task": "emnist10"},
        "handwriting": {"client_data": "handwriting", "num_clients": 6, "cache_dir": str(tmp_path / "cache")},
        "sqlite": {"client_data": str(sqlite_file(tmp_path)), "cache_dir": str(tmp_path / "cache"), "test_clients": 1},
        "tff": {"client_data": "tff", "cache_dir": str(tmp_path), "test_clients": 1},
    }
    directory = run(**{"rounds": 2, **settings[source]})
    config = json.loads((directory / "config.json").read_text())
    assert config["synthetic"] == (source == "handwriting")
    assert config["source"].startswith("synthetic") == (source == "handwriting")
    assert (directory / "summary.json").exists()


def test_the_same_command_again_shows_the_finished_run_and_computes_nothing(run, capsys):
    directory = run()
    before = {path: path.stat().st_mtime_ns for path in directory.glob("*.*")}
    first = capsys.readouterr().out
    assert run() == directory
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in directory.glob("*.*")} == before


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(run):
    one, two, other = (run(run_name=name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    for name in ("metrics.csv", "evaluations.csv", "clients.csv", "distribution.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
        assert (one / name).read_bytes() != (other / name).read_bytes()


def test_a_run_directory_of_other_settings_is_refused_and_the_setting_named(run):
    directory = run()
    before = {path: path.read_bytes() for path in directory.glob("*.*")}
    with pytest.raises(errors.UserError, match=r"clients_per_round was 3, is 2.*--run_name"):
        run(clients_per_round=2)
    assert {path: path.read_bytes() for path in directory.glob("*.*")} == before


def test_settings_that_change_no_number_do_not_make_another_run(run):
    directory = run(rounds_per_checkpoint=1)
    assert run(rounds_per_checkpoint=3, cores=1) == directory


def test_default_names_differ_whenever_a_number_could(tmp_path):
    names = set()
    for settings in ({}, {"seed": 2}, {"rounds": 7}, {"server_learning_rate": 0.5}, {"writer_heterogeneity": 0.0}):
        with flagsaver.flagsaver(**settings):
            names.add(config_lib.from_flags().run_name())
    assert len(names) == 5
    with flagsaver.flagsaver(output_dir=str(tmp_path), cores=1):
        assert config_lib.from_flags().run_name() in names


BAD_FLAGS = [
    ({"server_adam_beta_1": 0.8}, "--server_adam_beta_1", "--server_optimizer=sgd"),
    ({"server_optimizer": "yogi"}, "--server_learning_rate", "yogi"),
    ({"client_learning_rate": -1.0}, "--client_learning_rate=-1", "positive"),
    ({"client_learning_rate": float("nan")}, "--client_learning_rate=nan", "finite"),
    ({"server_sgd_momentum": 2.0}, "--server_sgd_momentum=2", "[0, 1]"),
    ({"local_steps": 5}, "--local_steps", "--method=fed_avg"),
    ({"method": "reptile", "local_epochs": 5}, "--local_epochs", "--method=reptile"),
    ({"method": "reptile", "client_weighting": "uniform"}, "--client_weighting", "--method=reptile"),
    ({"stage_2_server_learning_rate": 0.1}, "--stage_2_server_learning_rate", "--method=fed_avg"),
    ({"method": "centralized", "server_learning_rate": 0.1}, "--server_learning_rate", "--method=centralized"),
    ({"method": "centralized", "client_learning_rate_schedule": "cosine"}, "--client_learning_rate_schedule", "remove"),
    ({"method": "scaffold", "client_optimizer": "adam"}, "--method=scaffold", "--client_optimizer=sgd"),
    ({"method": "scaffold", "client_sgd_momentum": 0.9}, "--method=scaffold", "without momentum"),
    ({"method": "scaffold", "aggregator": "dp"}, "--aggregator", "--method=scaffold"),
    ({"method": "mime_lite", "client_learning_rate": 0.1}, "--client_learning_rate", "--method=mime_lite"),
    ({"proximal_strength": 0.1}, "--proximal_strength", "--method=fed_avg"),
    ({"method": "local_only", "rounds": 5}, "--rounds", "--method=local_only"),
    ({"method": "personalized_fed_avg", "rounds": 10, "stage_2_round": 11}, "--stage_2_round=11", "--rounds=10"),
    ({"client_data": "digits", "num_clients": 5}, "--num_clients", "--client_data=digits"),
    ({"rounds": -1}, "--rounds=-1", "0 or more"),
    ({"batch_size": 0}, "--batch_size=0", "1 or more"),
    ({"target_accuracy": 1.5}, "--target_accuracy=1.5", "1 or less"),
    ({"writer_heterogeneity": float("nan")}, "--writer_heterogeneity=nan", "0 or more"),
    ({"strategies": ["fine_tun"]}, "--strategies", "fine_tune"),
    ({"strategies": ["fine_tune", "fine_tune"]}, "--strategies", "twice"),
]


@pytest.mark.parametrize(("settings", "flag", "hint"), BAD_FLAGS, ids=[bad[1] for bad in BAD_FLAGS])
def test_a_flag_that_is_wrong_or_unread_is_refused_in_one_line_that_names_it(settings, flag, hint):
    with flagsaver.flagsaver(**settings), pytest.raises(errors.UserError) as refusal:
        config_lib.from_flags()
    message = str(refusal.value)
    assert "\n" not in message
    assert flag in message
    assert hint in message


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"client_data": "no/such/file.npz"}, ["--client_data=no/such/file.npz"]),
        ({"test_clients": 12}, ["--test_clients=12", "12 clients"]),
        ({"validation_clients": 4}, ["--validation_clients=4"]),
        ({"train_clients": 9}, ["--train_clients=9"]),
    ],
)
def test_data_that_does_not_fit_is_refused_by_flag(run, tmp_path, settings, names):
    with pytest.raises(errors.UserError) as refusal:
        run(**settings)
    assert all(name in str(refusal.value) for name in names)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())  # nothing is left half-made


def test_a_directory_that_cannot_be_written_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(errors.UserError, match="--output_dir"):
        run(output_dir=str(tmp_path / "file"))


def test_a_damaged_configuration_is_named(run):
    directory = run()
    (directory / "config.json").write_text("{")
    with pytest.raises(errors.UserError, match=r"config\.json is damaged"):
        run()


def test_every_preset_is_one_that_the_program_takes():
    presets = sorted(pathlib.Path(run_experiment.__file__).parent.glob("configs/**/*.flags"))
    assert len(presets) >= 10
    for preset in presets:
        values = flags.FlagValues()
        config_lib.define_flags(values)
        values(["run_experiment", f"--flagfile={preset}"])
        experiment = config_lib.from_flags(values)
        if preset.parent.name == "table1":
            assert f"cohort{experiment.config.clients_per_round:02d}" in preset.stem
            assert f"epochs{experiment.config.local_epochs:02d}" in preset.stem
            assert experiment.config.rounds == 500


def test_the_defaults_are_the_papers():
    values = flags.FlagValues()
    config_lib.define_flags(values)
    values(["run_experiment"])
    experiment = config_lib.from_flags(values)
    config, specs = experiment.config, experiment.optimizers
    assert (config.batch_size, config.local_epochs, config.clients_per_round) == (20, 10, 20)
    assert (specs["client"].name, specs["client"].learning_rate) == ("sgd", 0.02)
    assert (specs["server"].name, specs["server"].learning_rate, specs["server"].options) == (
        "sgd",
        1.0,
        {"momentum": 0.9},
    )
    assert (specs["personalization"].name, specs["personalization"].learning_rate) == ("sgd", 0.02)


def test_a_truncated_run_is_finished_by_the_same_command(run, tmp_path):
    """As if killed after round 6's checkpoint, with rounds 7 and 8 on record already."""
    settings = {"rounds": 8, "rounds_per_checkpoint": 3}
    whole = run(run_name="whole", **settings)
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    for name in ("summary.json", "clients.csv", "distribution.csv"):
        (cut / name).unlink()
    shutil.rmtree(cut / "checkpoints" / "round_8")
    run(run_name="cut", **settings)
    for name in ("metrics.csv", "evaluations.csv", "clients.csv", "distribution.csv"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


def test_no_rounds_evaluate_the_untrained_model(run):
    directory = run(rounds=0)
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["rounds"] == 0
    assert np.isfinite(summary["initial_accuracy"]["mean"])
