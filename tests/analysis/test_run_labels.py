"""Labels of runs in figures: method, different settings, seed; never a name of the code."""

from analysis import run_labels
from analysis import runs as runs_lib


def _labels(make_run, folder, *plan):
    made = [
        make_run(f"{folder}_{n}", method=method, seed=seed, flags=given, given={"rounds": 9} | given)
        for n, (method, seed, given) in enumerate(plan)
    ]
    return run_labels.of([runs_lib.read(directory) for directory in made])


def test_methods_settings_and_seeds_that_differ_are_named_in_words(make_run):
    adam = {"server_optimizer": "adam", "server_learning_rate": 0.003}
    assert _labels(make_run, "a", ("fed_avg", 1, {}), ("fed_avg", 2, adam), ("reptile", 1, {"local_steps": 5})) == [
        "FedAvg · seed 1",
        "FedAvg · server Adam · server rate 0.003 · seed 2",
        "Reptile · K 5 · seed 1",
    ]


def test_a_name_that_a_run_was_given_is_kept(make_run):
    assert _labels(make_run, "a", ("fed_avg", 1, {"run_name": "mine"}), ("reptile", 1, {})) == ["mine", "Reptile"]


def test_a_run_without_the_setting_that_differs_has_the_name_of_its_method(make_run):
    switch = {"stage_2_round": 50}
    assert _labels(make_run, "a", ("fed_avg", 1, switch), ("fed_avg", 1, {})) == ["switch at 50", "FedAvg"]
    assert _labels(make_run, "b", ("fed_avg", 1, switch), ("fed_avg", 2, {})) == [
        "switch at 50 · seed 1",
        "FedAvg · seed 2",
    ]


def test_a_value_is_written_so_that_the_command_line_gives_it_again():
    for value, written in ((0.02, "0.02"), (5.0, "5"), (1e-8, "1e-08"), ([0.5, 2.0], "0.5,2"), (None, "None")):
        assert run_labels.as_text(value) == written
    for value in (0.0031622776601683794, 1234567.0, 0.1 + 0.2):
        assert float(run_labels.as_text(value)) == value


def test_strategies_are_named_only_where_nothing_else_tells_two_runs_apart(make_run):
    one, two = {"strategies": ["fine_tune_adam"]}, {"strategies": ["fine_tune", "ditto"]}
    assert _labels(make_run, "a", ("fed_avg", 1, one), ("reptile", 1, two)) == ["FedAvg", "Reptile"]
    assert _labels(make_run, "b", ("fed_avg", 1, one), ("fed_avg", 1, two)) == [
        "evaluated with fine-tuning, Adam",
        "evaluated with 2 strategies",
    ]
