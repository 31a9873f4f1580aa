"""`--help` with a choice."""

import re

import pytest
from absl import flags
from absl.testing import flagsaver

import run_experiment
from tff_personalization.experiment import config, flag_help


def flags_in_help(*arguments):
    values = flags.FlagValues()
    config.define_flags(values)
    values(["run_experiment", *arguments])
    return set(re.findall(r"^  --(?:\[no\])?(\w+):", flag_help.of_choices(values), re.MULTILINE))


def test_of_a_method_it_lists_what_the_method_reads():
    found = flags_in_help("--method=fed_prox")
    assert {"proximal_strength", "local_epochs", "batch_size", "server_sgd_momentum", "clients_per_round"} <= found
    assert not found & {"local_steps", "rounds", "ditto_lambda", "client_adam_beta_1", "flagfile"}


def test_of_strategies_an_aggregator_and_a_source_it_lists_what_each_reads():
    assert flags_in_help("--strategies=knn_per") == {"knn_lambda", "knn_neighbours"}
    assert flags_in_help("--aggregator=dp") == {"dp_noise_multiplier", "dp_delta"}
    assert flags_in_help("--client_data=handwriting") == {"cache_dir", "num_clients", "writer_heterogeneity"}


def test_the_options_are_those_of_the_optimizer_that_was_chosen():
    found = flags_in_help("--method=fed_sgd", "--client_optimizer=adam")
    assert "client_adam_beta_1" in found
    assert "client_sgd_momentum" not in found


def test_the_first_flags_are_twenty_flags_with_a_line_each():
    values = flags.FlagValues()
    config.define_flags(values)
    lines = flag_help.of_first_flags(values).splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("  --")]
    assert shown[:3] == ["--task=emnist62", "--client_data", "--test_clients"]
    assert len(shown) == 20
    assert max(map(len, lines)) <= 120


def test_without_a_choice_there_is_none_of_its_own():
    assert flags_in_help("--rounds=3") == set()


@pytest.mark.parametrize("arguments", [["--help", "--aggregator=dp"], ["--aggregator=dp", "--help"]])
def test_it_ends_with_exit_status_0_wherever_help_stands(arguments, capsys):
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as left:
        run_experiment.parse_flags(["run_experiment", *arguments])
    assert left.value.code == 0
    assert "--dp_delta" in capsys.readouterr().out
