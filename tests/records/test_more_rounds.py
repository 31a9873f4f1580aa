"""More rounds, or another final evaluation, after a finished run: its rounds are taken over, and no result changes."""

import json

import pandas as pd
import pytest

from analysis import names
from tests import processes
from tff_personalization import errors
from tff_personalization.programs import rounds, training

METHODS = {
    "fed_avg": {"client_learning_rate_schedule": "exponential", "client_learning_rate_decay": 0.9},
    "personalized_fed_avg": {"stage_2_round": 3, "local_steps": 3},
    "scaffold": {"server_learning_rate_schedule": "inverse_sqrt"},
    "ifca": {"clusters": 2, "strategies": ("best_cluster",)},
}
EVERY_ROUND = {"rounds_per_evaluation": 2, "validation_clients": 3}


def settings_of(method):
    return {**EVERY_ROUND, **METHODS[method], "method": method, "server_optimizer": "adam"} | (
        {"server_optimizer": None, "stage_2_server_optimizer": "adam"} if method == "personalized_fed_avg" else {}
    )


def listed(settings):
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def taken_over(directory):
    return json.loads((directory / "config.json").read_text()).get("rounds_taken_over", {}).get("rounds")


@pytest.fixture
def counted(monkeypatch):
    """Records the rounds that are computed."""
    computed, train = [], rounds.train

    def counting(program, state):
        computed.append(state.round_number + 1)
        return train(program, state)

    monkeypatch.setattr(rounds, "train", counting)
    return computed


@pytest.mark.parametrize("method", [name for name in METHODS if name != "fed_avg"])  # which the next test has
def test_four_rounds_and_four_more_are_eight_in_one_go(run, run_once, method, counted):
    settings = settings_of(method)
    run(**listed(settings), rounds=4, run_name="half")
    counted.clear()
    more = run(**listed(settings), rounds=8, run_name="more")  # finds it beside itself
    assert counted == [5, 6, 7, 8]
    assert taken_over(more) == 4
    processes.assert_same_numbers(more, run_once(**settings, rounds=8, run_name="whole"))


def test_the_same_name_with_more_rounds_keeps_the_shorter_run_under_another(run, run_once, counted, capsys):
    settings = settings_of("fed_avg")
    short = run(**settings, rounds=4)
    before = (short / "summary.json").read_bytes()
    counted.clear()
    more = run(**settings, rounds=8)
    assert counted == [5, 6, 7, 8]
    processes.assert_same_numbers(more, run_once(**settings, rounds=8, run_name="whole"))
    kept = short.with_name("run-earlier")
    assert (kept / "summary.json").read_bytes() == before
    said = capsys.readouterr().err
    assert f"{short} has the first rounds of this run; it is renamed to {kept}." in said
    assert f"Rounds 1 to 4 are those of {kept}" in said
    counted.clear()
    run(**settings, rounds=8)  # finished
    assert counted == []


def test_a_stopped_run_may_be_given_more_rounds_also_if_its_clients_keep_states(run, run_once, stopped_after):
    settings = settings_of("scaffold")
    with stopped_after(3):
        run(**settings, rounds=4)
    with pytest.raises(errors.UserError, match="rounds was 4, is 3"):
        run(**settings, rounds=3)
    more = run(**settings, rounds=8)
    assert json.loads((more / "config.json").read_text())["flags"]["rounds"] == 8
    processes.assert_same_numbers(more, run_once(**settings, rounds=8, run_name="whole"))


def test_a_stopped_run_that_is_asked_for_more_models_says_that_it_lacks_the_earlier_ones(run, stopped_after, caplog):
    settings = {"rounds": 3, "rounds_per_evaluation": 0}
    with stopped_after(2):
        run(**settings)
    directory = run(**settings, rounds_per_model=1)
    said = f"{directory} has computed 2 rounds and kept no models: to keep those of --rounds_per_model=1, give another"
    assert said in caplog.text


def test_rounds_that_depend_on_their_number_are_computed_again_and_the_schedule_is_named(run, counted):
    settings = {**settings_of("fed_avg"), "client_learning_rate_schedule": "cosine", "client_learning_rate_decay": None}
    short = run(**settings, rounds=4, run_name="half")
    counted.clear()
    named = r"rounds: 4 there, 6 here, which --client_learning_rate_schedule=cosine depends on"
    with pytest.raises(errors.UserError, match=named):
        run(**settings, rounds=6, run_name="more", rounds_from=str(short))
    assert counted == []
    assert taken_over(run(**settings, rounds=6, run_name="more")) is None
    assert counted == [1, 2, 3, 4, 5, 6]
    with pytest.raises(errors.UserError, match="rounds was 4, is 6"):
        run(**settings, rounds=6, run_name="half")


def test_pooled_training_resumes_with_the_number_of_threads_that_it_started_with(run, stopped_after, monkeypatch):
    """Another number of threads would change the last digits, and by default it is that of the cores."""
    threads, computing = [], training._computing

    def noting(config, cores, of_each, writer):
        threads.append(of_each)
        return computing(config, cores, of_each, writer)

    monkeypatch.setattr(training, "_computing", noting)
    settings = {"method": "centralized", "rounds_per_evaluation": 0}
    with stopped_after(2):
        run(**settings, cores=3, rounds=3)
    run(**settings, cores=1, rounds=3)  # resumed
    run(**settings, cores=2, rounds=4, run_name="more")  # continues it
    run(**settings, cores=2, rounds=4, run_name="again", rounds_from="none")
    assert threads == [3, 3, 3, 2]


def test_another_end_takes_all_rounds_over_and_more_rounds_can_follow(run, run_once, counted):
    settings = settings_of("scaffold")
    run(**settings, rounds=4, run_name="first")
    counted.clear()
    end = {"strategies": ["fine_tune", "fine_tune_head"], "evaluation_seed": 5}
    judged = run(**settings, **end, rounds=4, run_name="judged")
    assert counted == []
    once = {**settings, **end, "strategies": ("fine_tune", "fine_tune_head")}
    processes.assert_same_numbers(judged, run_once(**once, rounds=4, run_name="once"))
    counted.clear()
    more = run(**settings, **end, rounds=8, run_name="more", rounds_from=str(judged))
    assert counted == [5, 6, 7, 8]
    processes.assert_same_numbers(more, run_once(**once, rounds=8, run_name="whole"))


def test_another_seed_of_evaluation_changes_the_end_and_nothing_before(run):
    one = run(**EVERY_ROUND, run_name="one")
    other = run(**EVERY_ROUND, run_name="other", evaluation_seed=5)
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    assert (one / "clients.csv").read_bytes() != (other / "clients.csv").read_bytes()
    same = run(**EVERY_ROUND, run_name="same", evaluation_seed=1)  # that of the run
    assert (one / "clients.csv").read_bytes() == (same / "clients.csv").read_bytes()


def test_rounds_of_other_code_or_of_the_very_same_run_are_not_taken_over_unasked(run, counted):
    settings = settings_of("fed_avg")
    short = run(**settings, rounds=4, run_name="half")
    counted.clear()
    run(**settings, rounds=4, run_name="again")
    assert counted == [1, 2, 3, 4]
    for path in short.parent.glob("*/config.json"):
        config = json.loads(path.read_text())
        config["starts"][0]["code_sha256"] = "of another version"
        path.write_text(json.dumps(config))
    counted.clear()
    assert taken_over(run(**settings, rounds=6, run_name="more")) is None
    assert counted == [1, 2, 3, 4, 5, 6]
    with pytest.raises(errors.UserError, match="rounds was 4, is 8"):
        run(**settings, rounds=8, run_name="half")
    assert taken_over(run(**settings, rounds=8, run_name="asked", rounds_from=str(short))) == 4
    assert taken_over(run(**settings, rounds=9, run_name="longer")) == 6  # of "more", for "asked" has such rounds


def test_rounds_whose_models_are_asked_for_and_were_not_kept_are_computed_again(run, counted):
    run(**EVERY_ROUND, rounds=4, run_name="half")
    counted.clear()
    more = run(**EVERY_ROUND, rounds=6, rounds_per_model=1, run_name="more")
    assert counted == [1, 2, 3, 4, 5, 6]
    assert len([*(more / "models").iterdir()]) == 6
    counted.clear()
    assert taken_over(run(**EVERY_ROUND, rounds=8, rounds_per_model=3, run_name="most")) == 6
    assert counted == [7, 8]


def test_a_shorter_run_does_not_lose_the_models_that_participants_keep(run, counted):
    """A longer run has kept them only as they are after its last round."""
    settings = {"method": "ditto", "rounds_per_evaluation": 0}
    longer = run(**settings, rounds=4, rounds_per_model=2, run_name="longer")
    counted.clear()
    shorter = run(**settings, rounds=2, run_name="shorter")
    assert counted == [1, 2]
    assert names.KEPT[0] in pd.read_csv(shorter / "participants.csv")["strategy"].unique()
    with pytest.raises(errors.UserError, match=r"--rounds_from=.*no states of clients after round 2.*--participants=0"):
        run(**settings, rounds=2, run_name="asked", rounds_from=str(longer))
    counted.clear()
    assert taken_over(run(**settings, rounds=2, run_name="without", participants=0)) == 2
    assert counted == []


def test_a_run_computes_the_rounds_of_an_earlier_run_whose_records_are_damaged(run, counted):
    short = run(**EVERY_ROUND, rounds=4, run_name="half")
    (short / "metrics.csv").write_text("damaged")
    counted.clear()
    assert taken_over(run(**EVERY_ROUND, rounds=6, run_name="more")) is None
    assert counted == [1, 2, 3, 4, 5, 6]


def test_a_run_does_not_resume_from_a_checkpoint_that_is_damaged_or_has_only_a_model(run):
    settings = settings_of("fed_avg")
    short = run(**settings, rounds=4, run_name="half")
    (longest := short / "checkpoints" / "round_4.json").write_text("{}")
    with pytest.raises(errors.UserError, match="round_4: its checksums cannot be read"):
        run(**settings, rounds=8, run_name="more", rounds_from=str(short))
    longest.unlink()
    with pytest.raises(errors.UserError, match="has 4 of the 8 rounds, but no checkpoint"):
        run(**settings, rounds=8, run_name="more", rounds_from=str(short))
    of_models = run(**settings, rounds=4, strategies=["fine_tune_head"], rounds_from="none", run_name="head")
    config = json.loads((of_models / "config.json").read_text())
    config["rounds_taken_over"] = {"run_name": "x", "rounds": 4, "git_commit": "x"}  # in an earlier version's form
    (of_models / "config.json").write_text(json.dumps(config))
    with pytest.raises(errors.UserError, match="has 4 of the 8 rounds, but no checkpoint"):
        run(**settings, rounds=8, strategies=["fine_tune_head"], run_name="more", rounds_from=str(of_models))


def test_a_cohort_larger_than_the_population_is_reported_and_recorded_with_its_real_size(run, caplog):
    directory = run(clients_per_round=30, rounds=1, rounds_per_evaluation=0)
    assert "--clients_per_round=30 is more than the train clients: each round uses all 8 of them." in caplog.text
    config = json.loads((directory / "config.json").read_text())
    assert (config["clients_of_a_round"], config["flags"]["clients_per_round"]) == (8, 30)
