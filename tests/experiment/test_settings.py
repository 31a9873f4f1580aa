"""The experiment that flags describe, and the flags that are refused."""

import dataclasses
import pathlib

import pytest
from absl import flags
from absl.testing import flagsaver

import run_experiment
from tff_personalization import errors, metrics
from tff_personalization.algorithms import fed_avg
from tff_personalization.experiment import config as config_lib
from tff_personalization.experiment import settings as settings_lib
from tff_personalization.settings import Group, Setting
from tff_personalization.tasks import registry, sources


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
    ({"method": "local_only", "rounds_per_model": 5}, "--rounds_per_model", "--method=local_only"),
    ({"method": "local_only", "rounds_per_checkpoint": 5}, "--rounds_per_checkpoint", "--method=local_only"),
    ({"method": "local_only", "evaluation_clients": 5}, "--evaluation_clients", "--method=local_only"),
    ({"rounds_per_evaluation": 0, "evaluation_clients": 5}, "--evaluation_clients", "--rounds_per_evaluation=0"),
    ({"rounds_per_evaluation": 0, "target_accuracy": 0.5}, "--target_accuracy", "--rounds_per_evaluation=0"),
    (
        {"method": "centralized", "pooled_examples_per_round": 50, "local_epochs": 2},
        "--local_epochs",
        "--pooled_examples_per_round=50",
    ),
    ({"method": "personalized_fed_avg", "stage_1_share": 1.0}, "--stage_1_share=1: the second stage", "more --rounds"),
    ({"method": "personalized_fed_avg", "rounds": 1}, "the second stage of --method", "--rounds=1"),
    ({"method": "personalized_fed_avg", "rounds": 10, "stage_2_round": 11}, "--stage_2_round=11", "--rounds=10"),
    ({"client_data": "digits", "num_clients": 5}, "--num_clients", "--client_data=digits"),
    (
        {"task": "shakespeare", "client_data": "handwriting"},
        "--client_data=handwriting",
        "--task=shakespeare: use plays",
    ),
    ({"client_data": "plays"}, "--client_data=plays", "--task=emnist62: use handwriting"),
    ({"task": "shakespeare", "num_clients": 5}, "--num_clients", "--client_data=plays"),
    ({"task": "shakespeare", "cache_dir": "here"}, "--cache_dir", "--client_data=plays"),
    ({"task": "shakespeare", "model": "cnn"}, "--model=cnn", "--task=shakespeare: use char_lstm"),
    ({"rounds": -1}, "--rounds=-1", "0 or more"),
    ({"client_data": ""}, "--client_data is empty", "give a path"),
    ({"output_dir": ""}, "--output_dir is empty", "give a path"),
    ({"run_name": 300 * "x"}, "--run_name=xxx", "at most 240 bytes"),
    ({"batch_size": 0}, "--batch_size=0", "1 or more"),
    ({"target_accuracy": 1.5}, "--target_accuracy=1.5", "1 or less"),
    ({"writer_heterogeneity": float("nan")}, "--writer_heterogeneity=nan", "0 or more"),
    ({"dp_noise_multiplier": 0.5}, "--dp_noise_multiplier", "--aggregator=mean"),
    ({"aggregator": "robust", "dp_delta": 1e-5}, "--dp_delta", "--aggregator=robust"),
    ({"aggregator": "dp", "dp_noise_multiplier": -1.0}, "--dp_noise_multiplier=-1", "0 or more"),
    ({"aggregator": "dp", "client_weighting": "examples"}, "--client_weighting=examples", "--aggregator=dp"),
    ({"method": "centralized", "aggregator": "robust"}, "--aggregator", "--method=centralized"),
    ({"method": "local_only", "aggregator": "dp"}, "--aggregator", "--method=local_only"),
    ({"method": "centralized", "dp_noise_multiplier": 0.5}, "--dp_noise_multiplier", "--method=centralized"),
    ({"clusters": 2}, "--clusters", "--method=fed_avg"),
    ({"method": "ifca", "aggregator": "dp"}, "--aggregator=dp", "--method=ifca"),
    ({"strategies": ["best_cluster"]}, "best_cluster", "--method=ifca"),
    ({"head_epochs": 2}, "--head_epochs", "fine_tune"),
    ({"strategies": ["fine_tun"]}, "--strategies", "fine_tune"),
    ({"strategies": ["fine_tune", "fine_tune"]}, "--strategies", "repeated"),
    ({"ditto_lambda": 0.1}, "--ditto_lambda", "--strategies=fine_tune,fine_tune_head"),
    ({"task": "shakespeare", "strategies": ["fine_tune", "knn_per"]}, "--strategies: knn_per", "--task=shakespeare"),
    ({"knn_neighbours": 3, "strategies": ["apfl"]}, "--knn_neighbours", "--strategies=apfl"),
    ({"personalization_learning_rate": 0.1, "strategies": ["knn_per"]}, "--personalization_learning_rate", "knn_per"),
    ({"personalization_batch_size": 5, "strategies": ["knn_per"]}, "--personalization_batch_size", "knn_per"),
    (
        {"personalization_adam_beta_1": 0.8, "strategies": ["fine_tune_adam"]},
        "--personalization_adam_beta_1",
        "fine_tune_adam",
    ),
    ({"apfl_alpha": 1.5, "strategies": ["apfl"]}, "--apfl_alpha=1.5", "1 or less"),
    ({"fine_tune_adam_learning_rate": 0.0}, "--fine_tune_adam_learning_rate=0.0", "positive"),
    ({"personalization_learning_rates": ["0.1"]}, "--personalization_learning_rates", "--validation_clients"),
    (
        {"personalization_learning_rates": ["0.1", "-1"], "validation_clients": 2},
        "--personalization_learning_rates: '-1'",
        "positive",
    ),
    ({"evaluate_on": "validation"}, "--evaluate_on=validation", "give --validation_clients"),
    (
        {"personalization_learning_rates": ["0.1"], "validation_clients": 2, "evaluate_on": "validation"},
        "--personalization_learning_rates",
        "--evaluate_on=validation",
    ),
    ({"personalization_examples": ["1", "some"]}, "--personalization_examples: 'some'", "all"),
    ({"personalization_examples": ["-1"]}, "--personalization_examples: '-1'", "number of examples"),
    ({"personalization_examples": ["5", "05"]}, "--personalization_examples=5,5", "repeated"),
    ({"strategies": ["meta_sgd"]}, "--strategies: meta_sgd", "--method=fed_avg"),
    ({"method": "meta_sgd", "client_learning_rate": 0.1}, "--client_learning_rate", "--method=meta_sgd"),
    ({"method": "maml", "query_fraction": 1.5}, "--query_fraction=1.5", "1 or less"),
]


@pytest.mark.parametrize(("settings", "flag", "hint"), BAD_FLAGS, ids=[" ".join(bad[0]) for bad in BAD_FLAGS])
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
        ({"validation_clients": 8}, ["--validation_clients=8"]),
        ({"train_clients": 9}, ["--train_clients=9"]),
    ],
)
def test_data_that_does_not_fit_is_refused_by_flag(run, tmp_path, settings, names):
    with pytest.raises(errors.UserError) as refusal:
        run(**settings)
    assert all(name in str(refusal.value) for name in names)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())  # nothing is left half-made


@pytest.mark.parametrize(("rounds", "warned"), [(1, True), (2, False)])
def test_evaluations_that_never_happen_are_reported(run, caplog, rounds, warned):
    run(rounds=rounds, strategies=["fine_tune"])
    assert ("--rounds_per_evaluation=2 is more than --rounds=1" in caplog.text) == warned


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
            assert f"cohort{experiment.values['clients_per_round']:02d}" in preset.stem
            assert f"epochs{experiment.values['local_epochs']:02d}" in preset.stem
            assert experiment.config.rounds == 500


def test_tasks_may_have_sources_of_one_name_each_with_its_own_settings(monkeypatch):
    for task in ("one", "two"):
        group = type(task, (Group,), {f"noise_of_{task}": Setting(0.5, "How noisy the data is.", theme="data")})
        of_task = sources.own(sensors=sources.WithSettings(lambda options: None, group))
        emnist = registry.TASKS["emnist62"]
        monkeypatch.setitem(registry.TASKS, task, dataclasses.replace(emnist, sources=of_task))
    assert {"noise_of_one", "noise_of_two"} <= settings_lib.all_flags().keys()


def test_the_defaults_are_the_papers():
    values = flags.FlagValues()
    config_lib.define_flags(values)
    values(["run_experiment"])
    experiment = config_lib.from_flags(values)
    specs, read = experiment.optimizers, experiment.read(fed_avg.Settings)
    assert (read.batch_size, read.local_epochs, read.clients_per_round) == (20, 10, 20)
    assert (specs["client"].name, specs["client"].learning_rate) == ("sgd", 0.02)
    assert (specs["server"].name, specs["server"].learning_rate, specs["server"].options) == (
        "sgd",
        1.0,
        {"momentum": 0.9},
    )
    assert (specs["personalization"].name, specs["personalization"].learning_rate) == ("sgd", 0.02)


@pytest.mark.parametrize(
    ("metric", "given", "target"),
    [
        (metrics.ACCURACY, {}, 0.8),
        (metrics.Metric("cost", higher_is_better=False, largest=5.0), {}, 1.0),
        (metrics.Metric("grade", largest=5.0), {}, 4.0),
        (metrics.Metric("cost", higher_is_better=False, largest=5.0), {"target_accuracy": 0.8}, 0.8),
    ],
)
def test_the_default_target_is_a_share_of_the_way_to_the_best_value(monkeypatch, metric, given, target):
    judged = registry.TASKS["emnist62"].predicts.judged_by(metric, lambda logits, labels: 0)
    monkeypatch.setitem(registry.TASKS, "emnist62", dataclasses.replace(registry.TASKS["emnist62"], predicts=judged))
    assert config_lib.from_settings(given).config.target_accuracy == target
