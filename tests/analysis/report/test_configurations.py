"""Runs that differ only in their seed: their names and their figures over seeds."""

import json

import numpy as np
import pytest

from analysis import run_labels
from analysis import runs as runs_lib
from analysis import study as study_lib
from analysis.report import configurations
from tff_personalization.errors import UserError


@pytest.fixture
def table_1(study):
    return configurations.of(study_lib.read(study).experiments[0].runs)


def test_configurations_are_named_after_what_differs_and_in_the_order_of_its_numbers(table_1):
    assert [(c.label, [run.config["seed"] for run in c.runs]) for c in table_1] == [("E 5", [1, 2]), ("E 10", [1, 2])]


def test_a_flag_that_another_method_was_given_is_not_in_a_name(study):
    labels = {c.label for c in configurations.of(study_lib.read(study).experiments[1].runs)}
    assert labels == {"FedAvg · E 5", "FedAvg · E 2", "Personalized FedAvg · switch at 11"}


def test_one_configuration_is_called_by_its_method(study):
    (alone,) = configurations.of(study_lib.read(study).experiments[2].runs)
    assert alone.label == "FedAvg"


def test_runs_of_one_name_in_records_get_their_own(make_run):
    runs = [make_run(name, flags={"unrecorded": name}, given={"seed": 1}) for name in "ab"]
    found = configurations.of([runs_lib.read(run) for run in runs])
    assert [c.label for c in found] == ["Personalized FedAvg · a", "Personalized FedAvg · b"]


def test_measures_are_means_and_deviations_over_seeds(study, table_1):
    table = configurations.over_seeds(table_1)
    for row, epochs in zip(table.itertuples(), (5, 10), strict=True):
        summaries = [json.loads((study / f"runs/E{epochs}_seed{s}/summary.json").read_text()) for s in (1, 2)]
        means = [summary["personalized_accuracy"]["mean"] for summary in summaries]
        assert row.seeds == 2
        assert row.personalized_accuracy == pytest.approx(np.mean(means))
        assert row.personalized_accuracy_sd == pytest.approx(abs(means[0] - means[1]) / np.sqrt(2))
        assert row.examples == 20 * 1000


def test_the_chosen_round_is_what_the_summary_says_and_missing_without_one(make_run):
    directory = make_run()
    run = configurations.per_run(runs_lib.read(directory))
    assert np.isnan(run["chosen_round"])
    summary = json.loads((directory / "summary.json").read_text())
    chosen = {"round": 40, "initial_accuracy": {"mean": 0.7}, "personalized_accuracy": {"mean": 0.8}}
    (directory / "summary.json").write_text(json.dumps(summary | {"validation_round": chosen}))
    run = configurations.per_run(runs_lib.read(directory))
    names = ("chosen_round", "chosen_initial_accuracy", "chosen_personalized_accuracy")
    assert [run[name] for name in names] == [40, 0.7, 0.8]


def test_the_worst_tenth_is_of_clients_and_missing_where_there_are_none(make_run):
    run = runs_lib.read(make_run("records", clients=20, without_test_data=0))
    lowest = sorted(run.client_gains()["personalized"])[:2]
    assert configurations.per_run(run)["worst_tenth"] == pytest.approx(np.mean(lowest))
    assert np.isnan(configurations.per_run(runs_lib.read(make_run("sums", release="aggregates")))["worst_tenth"])


def test_the_same_settings_and_seed_twice_are_refused(make_run):
    runs = [runs_lib.read(make_run(name)) for name in ("a", "b")]
    with pytest.raises(UserError, match="the same settings and seed"):
        configurations.of(runs)


def test_optimizers_are_settings_by_the_names_of_their_flags_and_paths_are_cut(make_run):
    spec = {"name": "adam", "learning_rate": 0.1, "options": {"beta_1": 0.8}}
    flags = {"optimizers": {"server": spec}, "client_data": "/some/where/mine.npz"}
    run = runs_lib.read(make_run(flags=flags, given={"client_data": "/some/where/mine.npz"}))
    found = run_labels.settings(run)
    assert (found["server_optimizer"], found["server_learning_rate"], found["server_adam_beta_1"]) == ("adam", 0.1, 0.8)
    assert run_labels.given(run) == {"client_data": "mine.npz"}


def test_labels_begin_the_names_and_runs_keep_their_order(make_run):
    plan = [("two", {"local_epochs": 20}), ("two", {"local_epochs": 5}), ("one", {"local_epochs": 5, "local_steps": 3})]
    runs = [runs_lib.read(make_run(f"run{n}", flags=flags, given=flags)) for n, (_, flags) in enumerate(plan)]
    found = configurations.of(runs, [label for label, _ in plan])
    assert [c.label for c in found] == ["two · E 20", "two · E 5", "one"]
