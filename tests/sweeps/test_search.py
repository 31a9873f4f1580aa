"""Searches: their candidates, successive halving, and a whole search with a sweep after it."""

import io
import pathlib
import signal

import numpy as np
import pandas as pd
import pytest

from tests.sweeps.conftest import small_runs
from tff_personalization import errors
from tff_personalization.sweeps import search, sweep
from tff_personalization.tasks import federated_data

PATH = pathlib.Path("rates.toml")
VALIDATION = "--validation_clients=2"
BOUNDS = {"client_learning_rate": [0.001, 1.0], "server_learning_rate": [0.5, 2.0]}


def points(count, seed=1):
    return np.array([list(each.values()) for each in search.candidates(PATH, {"trials": count, **BOUNDS}, seed)])


def test_points_lie_between_the_bounds_evenly_on_a_logarithmic_scale():
    rates = points(300)
    for column, (low, high) in zip(rates.T, BOUNDS.values(), strict=True):
        assert column.min() >= low
        assert column.max() <= high
        shares = np.log(column / low) / np.log(high / low)
        # Halton points: every tenth of the range has about a tenth of the points.
        assert np.histogram(shares, 10, (0, 1))[0] == pytest.approx(np.full(10, 30), abs=4)


def test_more_trials_keep_the_earlier_ones_and_another_seed_has_others():
    np.testing.assert_array_equal(points(20)[:7], points(7))
    assert not np.intersect1d(points(7), points(7, seed=2)).size


def test_without_a_number_of_trials_all_combinations_of_the_values_are_candidates():
    assert search.candidates(PATH, {"a": [1, 2], "b": ["x", "y"], "trial_rounds": [5]}, 1) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]


HALVING = """
    [search]
    client_learning_rate = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    trial_rounds = [5, 20]
    [grid]
    seed = [3, 4]
    rounds = [50]
    [[runs]]
    label = "first"
    strategies = ["fine_tune", "fine_tune_head"]
    [[runs]]
    label = "second"
    method = "fed_per"
    search = {client_learning_rate = [0.1, 0.2], head_learning_rate = [0.3]}
    [[runs]]
    label = "none"
    method = "reptile"
    search = {}
"""


@pytest.fixture
def trials(monkeypatch):
    """Trials are not made. Each has the accuracy that `accuracy` gives for its experiment; None if it failed."""
    made = []

    def start(of_sweep):
        made.sweep = of_sweep
        made.extend(of_sweep.runs)

    def outcome(trial):
        experiment = trial.directory.experiment
        measured = made.accuracy(experiment)
        row = {"rounds": experiment.config.rounds, search.MEASURED: measured, "status": "", "run_directory": ""}
        return {**row, "error": "" if measured is not None else made.error(experiment)}

    class Made(list):
        accuracy = staticmethod(lambda experiment: -experiment.optimizers["client"].learning_rate)
        error = staticmethod(lambda experiment: "not finite")

    made = Made()
    monkeypatch.setattr(sweep.Sweep, "start", start)
    monkeypatch.setattr(search, "_outcome", outcome)
    monkeypatch.setattr(search.files, "write_text", lambda path, text: setattr(made, path.stem, text))
    return made


def test_the_best_third_trains_on_and_the_runs_have_the_best_of_these(sweep_of, trials):
    def accuracy(experiment):  # at 20 rounds, another candidate is the best
        rate = experiment.optimizers["client"].learning_rate
        return -abs(rate - {5: 0.4, 20: 0.3}[experiment.config.rounds])

    trials.accuracy = accuracy
    made = sweep_of(HALVING, VALIDATION)
    rates = [(t.directory.experiment.config.rounds, t.overrides["client_learning_rate"]) for t in trials]
    assert rates[:9] == [*((5, rate / 10) for rate in range(1, 8)), (5, 0.1), (5, 0.2)]  # of both, then the best third
    assert sorted(rates[9:12]) == [(20, 0.3), (20, 0.4), (20, 0.5)]
    assert rates[12:] == [(20, 0.2)]
    assert [dict(run.overrides) for run in made.runs if run.label != "none"] == [
        *(
            {"strategies": ["fine_tune", "fine_tune_head"], "seed": s, "rounds": 50, "client_learning_rate": 0.3}
            for s in (3, 4)
        ),
        *(
            {"method": "fed_per", "seed": s, "rounds": 50, "client_learning_rate": 0.2, "head_learning_rate": 0.3}
            for s in (3, 4)
        ),
    ]
    assert [dict(run.overrides) for run in made.runs if run.label == "none"] == [
        {"method": "reptile", "seed": s, "rounds": 50} for s in (3, 4)
    ]


def test_trials_have_the_first_seed_the_main_strategy_and_no_test_clients(sweep_of, trials):
    common = [VALIDATION, "--personalization_learning_rates=0.1,0.2", "--participants=3"]
    made = sweep_of(HALVING, *common)
    of_trials = [trial.directory.experiment for trial in trials]
    assert {(e.config.seed, e.config.evaluate_on, e.config.participants) for e in of_trials} == {(3, "validation", 0)}
    assert {tuple(e.config.strategies) for e in of_trials} == {("fine_tune",), ("reconstruct",)}
    assert not any(e.values["personalization_learning_rates"] for e in of_trials)
    assert {run.directory.experiment.config.evaluate_on for run in made.runs} == {"test"}
    assert {run.directory.path.parent.name for run in trials} == {"sweep_search"}


def test_a_failed_trial_is_never_the_best_and_if_all_fail_so_have_the_runs_of_that_search(sweep_of, trials, capsys):
    trials.accuracy = lambda e: None if e.optimizers["client"].learning_rate < 0.25 else 0.5
    made = sweep_of(HALVING, VALIDATION)
    failed = {run.label: (run.status, run.error) for run in made.runs}
    assert failed["second"] == ("failed", "all trials failed: not finite")
    assert failed["first"] == failed["none"] == ("not run", "")
    assert "search for second: all trials failed: not finite" in capsys.readouterr().err
    rates = [
        trial.overrides["client_learning_rate"] for trial in trials if trial.directory.experiment.config.rounds == 20
    ]
    assert rates == [0.3, 0.4]
    table = pd.read_csv(io.StringIO(trials.search))
    second = table[table.run == "second"]
    assert second.error.tolist() == ["not finite", "not finite"]
    assert not second.chosen.any()


def test_of_several_errors_the_first_is_shown(sweep_of, trials):
    trials.accuracy = lambda e: None
    trials.error = lambda e: f"{e.optimizers['client'].learning_rate}: no room"
    (run,) = sweep_of("[search]\nclient_learning_rate = [0.1, 0.2, 0.3]\n", VALIDATION).runs
    assert run.error == "all trials failed: 0.1: no room (others: search.csv)"


def test_what_failed_in_the_search_is_not_made_and_listed(sweep_of, trials, monkeypatch, capsys):
    trials.accuracy = lambda e: None if e.config.method == "fed_per" else 0.5
    made = sweep_of(HALVING, VALIDATION)
    monkeypatch.undo()
    made.directory.mkdir(parents=True)
    assert [made.runs[number - 1].label for number in made._unfinished(lambda run: True)] == [
        "first",
        "first",
        "none",
        "none",
    ]
    made._report()
    assert "Failed: --method=fed_per" in (said := capsys.readouterr().out)
    assert "all trials failed: not finite" in said
    table = pd.read_csv(made.directory / "sweep.csv")
    second = table[table.label == "second"]
    assert second[["client_learning_rate", "run_directory"]].isna().all(axis=None)  # nothing was chosen or made
    assert (table.client_learning_rate[table.label == "first"] == 0.1).all()


def test_with_stop_on_failure_a_failed_trial_stops_the_search(sweep_of, trials, monkeypatch):
    def start(of_sweep):
        of_sweep.runs[2].status, of_sweep.runs[2].error = "failed", "not finite"

    monkeypatch.setattr(sweep.Sweep, "start", start)
    with pytest.raises(errors.UserError, match=r"a trial failed \(.*0\.3\): not finite"):
        sweep_of(HALVING, VALIDATION, "--sweep_stop_on_failure")


def test_searches_may_have_the_same_trials(sweep_of, trials):
    """Two runs that differ only in what trials leave out."""
    both = (
        '[search]\nclient_learning_rate = [0.1, 0.2]\n[[runs]]\nlabel = "a"\n[[runs]]\nlabel = "b"\nparticipants = 3\n'
    )
    made = sweep_of(both, VALIDATION)
    assert len({trial.directory.name for trial in trials}) == 2
    assert trials.sweep._next([3, 4], running=[1]) == 4  # the third is the first
    assert [run.overrides["client_learning_rate"] for run in made.runs] == [0.1, 0.1]
    assert pd.read_csv(io.StringIO(trials.search)).run.tolist() == ["a", "a", "b", "b"]


def test_an_interrupted_search_leaves_the_table_of_an_earlier_one(sweep_of, trials, monkeypatch):
    sweep_of(HALVING, VALIDATION)
    whole, start = trials.search, sweep.Sweep.start
    assert set(pd.read_csv(io.StringIO(whole)).run) == {"first", "second"}

    def interrupted(of_sweep):
        if of_sweep.runs[0].directory.experiment.config.rounds == 20:
            raise errors.Interrupted(signal.SIGTERM)
        start(of_sweep)

    monkeypatch.setattr(sweep.Sweep, "start", interrupted)
    with pytest.raises(errors.Interrupted):
        sweep_of(HALVING, VALIDATION)
    assert trials.search == whole


def test_nothing_is_chosen_while_another_process_makes_a_trial(sweep_of, trials, monkeypatch):
    def start(of_sweep):
        of_sweep.runs[1].status = sweep.IN_PROGRESS

    monkeypatch.setattr(sweep.Sweep, "start", start)
    with pytest.raises(errors.UserError, match="search for first: another process is making some of its trials"):
        sweep_of(HALVING, VALIDATION)


@pytest.mark.parametrize(
    "error",
    [
        "Error: runs/a/metrics.csv: cannot be written (No space left on device); make room, then start again.",
        "Error: memory ran out (in Python): stop other programs here",
        "ended by SIGKILL",
        "SIGTERM: stopped. The same command resumes from here.",
    ],
)
def test_a_trial_that_was_stopped_or_failed_because_of_the_machine_decides_nothing(sweep_of, trials, error):
    trials.accuracy = lambda e: None if e.optimizers["client"].learning_rate == 0.2 else 0.5
    trials.error = lambda e: error
    with pytest.raises(errors.UserError, match=r"because of the machine \(.*\): free .* reuses") as said:
        sweep_of("[search]\nclient_learning_rate = [0.1, 0.2, 0.3]\n", VALIDATION)
    assert error in str(said.value)
    assert "\n" not in str(said.value)


def test_trials_have_no_flags_of_the_strategies_that_they_leave_out(sweep_of, trials):
    text = HALVING.replace('"fine_tune_head"]', '"knn_per"]\n    knn_lambda = 0.3')
    made = sweep_of(text.split('[[runs]]\n    label = "second"')[0], VALIDATION, "--knn_neighbours=5")
    assert {tuple(trial.directory.experiment.config.strategies) for trial in trials} == {("fine_tune",)}
    assert not {"knn_lambda", "knn_neighbours"} & {*trials[0].directory.experiment.given}
    assert not any("knn" in argument for argument in trials.sweep._command(trials[0]))
    assert [run.directory.experiment.values["knn_lambda"] for run in made.runs] == [0.3, 0.3]


SEARCH = "[search]\ntrials = 2\nclient_learning_rate = "
BAD_SEARCHES = {
    "no validation": (
        f"{SEARCH}[0.1, 1]\n",
        ["--validation_clients=0"],
        ["run 1", "--evaluate_on=validation", "give --validation_clients"],
    ),
    "bounds": (f"{SEARCH}[1, 0.1]\n", [], ["search.client_learning_rate", "least"]),
    "number of trials": (SEARCH.replace("2", "0", 1) + "[0.1, 1]\n", [], ["search.trials"]),
    "no flag": ("[search]\ntrials = 3\n", [], ["search", "name a flag"]),
    "no such flag": ("[search]\nclient_rate = [1]\n", [], ["client_rate", "no such flag"]),
    "no such method": ("[search]\nlocal_epochs = [1]\n[[runs]]\nmethod = 'fedavg'\n", [], ["run 1", "--method=fedavg"]),
    "no list": ("[search]\nclient_learning_rate = 0.1\n", [], ["search.client_learning_rate", "list"]),
    "no rounds": ("[search]\nlocal_epochs = [1]\ntrial_rounds = [true]\n", [], ["search.trial_rounds"]),
    "rounds": ("[search]\nlocal_epochs = [1]\ntrial_rounds = [20, 5]\n", [], ["search.trial_rounds", "increasing"]),
    "in both": (
        "[search]\nlocal_epochs = [1]\n[grid]\nlocal_epochs = [2]\n",
        [],
        ["local_epochs", "[grid]", "[search]"],
    ),
    "of a run": ("[[runs]]\nsearch = 3\n", [], ["search of [[runs]] number 1", "search = {"]),
    "a trial only": (
        "[search]\ntrial_rounds = [8]\nlocal_steps = [5]\n"
        "[[runs]]\nmethod = 'personalized_fed_avg'\nstage_2_round = 20\n",
        ["--rounds=30"],
        ["run 1", "--stage_2_round"],
    ),
}


@pytest.mark.parametrize(("text", "arguments", "hints"), BAD_SEARCHES.values(), ids=BAD_SEARCHES)
def test_a_search_that_is_wrong_is_refused_in_one_line_before_anything_runs(sweep_of, tmp_path, text, arguments, hints):
    with pytest.raises(errors.UserError) as refusal:
        sweep_of(text, *(arguments or [VALIDATION]))
    assert "\n" not in str(refusal.value)
    assert all(hint in str(refusal.value) for hint in hints), refusal.value
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("_forked_runs")
def test_validation_clients_choose_and_test_clients_take_no_part(sweep_of, tmp_path, by_writer_archive, capsys):
    text = "[search]\nclient_learning_rate = [0.0001, 0.1]\ntrial_rounds = [3, 6]\n[grid]\nseed = [1, 2]\n"
    made = sweep_of(text, *small_runs(by_writer_archive), VALIDATION, "--rounds=8")
    table = pd.read_csv(tmp_path / "runs" / "sweep_search" / "search.csv")
    assert table["rounds"].tolist() == [3, 3, 6]
    assert table.chosen.tolist() == [False, False, True]
    split = federated_data.load(made.runs[0].directory.experiment.config).split
    for row in table.itertuples():
        clients = pd.read_csv(pathlib.Path(row.run_directory) / "clients.csv").query("epoch == 1")
        assert set(clients.client) == set(split.validation)
        assert clients.accuracy.mean() == pytest.approx(row.personalized_accuracy)
    best = table.groupby("client_learning_rate").personalized_accuracy.first().idxmax()
    assert {run.overrides["client_learning_rate"] for run in made.runs} == {best}
    assert "mean over validation clients" in capsys.readouterr().out
    assert sweep_of(text, *small_runs(by_writer_archive), VALIDATION, "--rounds=8").run()
    assert "finished already" in capsys.readouterr().err
    tested = pd.read_csv(made.runs[0].directory.path / "clients.csv")
    assert set(tested.client) == set(split.test)
