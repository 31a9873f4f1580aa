"""The program itself, on small data: every method and source, its records, its refusals."""

import dataclasses
import functools
import json

import numpy as np
import pandas as pd
import pytest

from analysis import names
from tests import processes, renyi
from tests.tasks.sources import small_files
from tff_personalization import errors
from tff_personalization.models import char_lstm
from tff_personalization.records import run_writer, saved_models
from tff_personalization.tasks import registry


def read(directory):
    summary = json.loads((directory / "summary.json").read_text())
    return summary, pd.read_csv(directory / "metrics.csv"), pd.read_csv(directory / "clients.csv")


TWO_STAGES = {"method": "personalized_fed_avg", "local_steps": 4, "stage_2_round": 3}


# `compression` does all that `robust` does, and more.
@pytest.mark.parametrize(("aggregator", "clients_per_call"), [("compression", 2), ("secure_sum", 50)])
def test_aggregators_train(run, aggregator, clients_per_call):
    _, metrics, _ = read(run(aggregator=aggregator, clients_per_call=clients_per_call, rounds=6))
    assert metrics.train_loss.iloc[-1] < 0.7 * metrics.train_loss.iloc[0]


def test_a_differentially_private_run_reports_what_it_has_spent(run, capsys):
    directory = run(aggregator="dp", dp_noise_multiplier=1.5, clients_per_call=2)
    summary, metrics, _ = read(directory)
    spent = summary["privacy"]
    assert np.isfinite(metrics.train_loss).all()
    assert (spent["clients_per_round"], spent["train_clients"]) == (3, 8)
    # By the papers' formulas; that a client is replaced halves z. Fractional orders may do a little better.
    rounds, delta, q = 4, 8**-1.1, 3 / 8
    fixed = renyi.epsilon(lambda a: renyi.sampling_without_replacement(q, 1.5 / 2, a), range(2, 16), rounds, delta)
    poisson = renyi.epsilon(lambda a: renyi.poisson_sampling(q, 1.5, a), range(2, 64), rounds, delta)
    assert spent["epsilon"] == pytest.approx(fixed, rel=0.01)
    assert spent["epsilon_poisson"] == pytest.approx(poisson, rel=0.01)
    assert spent["delta"] == pytest.approx(delta)
    assert f"ε = {spent['epsilon']:.3g}, δ = {spent['delta']:.2g}" in capsys.readouterr().out
    assert json.loads((directory / "config.json").read_text())["flags"]["client_weighting"] == "uniform"


def test_training_helps_and_personalization_helps_more(run):
    summary, metrics, _ = read(run(rounds=30, rounds_per_evaluation=0))
    assert metrics.train_loss.iloc[-1] < 0.5 * metrics.train_loss.iloc[0]
    assert summary["initial_accuracy"]["mean"] > 0.6
    assert summary["personalized_accuracy"]["mean"] > summary["initial_accuracy"]["mean"]


def test_the_second_stage_begins_where_the_first_ended_with_another_server_optimizer(run):
    _, metrics, _ = read(run(**TWO_STAGES))
    assert metrics.stage.tolist() == ["fed_avg", "fed_avg", "reptile", "reptile"]
    # The model is handed over: the loss continues to fall from its last value, far below an untrained model's.
    assert metrics.train_loss[2] < metrics.train_loss[1] < metrics.train_loss[0]


def test_centralized_matches_fed_avg_in_examples_on_average(run):
    """With all train clients in each cohort, FedAvg's rounds visit as many examples as those of the pooled stream."""
    pooled = run(method="centralized", clients_per_round=8, run_name="pooled")
    _, of_fed_avg, _ = read(run(clients_per_round=8, run_name="fed_avg"))
    _, metrics, _ = read(pooled)
    config = json.loads((pooled / "config.json").read_text())
    assert config["clients"] == {"train": 8, "validation": 0, "test": 4}
    assert metrics.examples.tolist() == of_fed_avg.examples.tolist()
    assert metrics.clients.tolist() == [1] * 4
    assert of_fed_avg.clients.tolist() == [8] * 4


def test_validation_clients_are_judged_between_rounds_when_there_are_any(run):
    directory = run(validation_clients=2)
    evaluations = pd.read_csv(directory / "evaluations.csv")
    assert set(evaluations[evaluations.split == "validation"].clients) == {2}
    assert set(evaluations[evaluations.split == "test"].clients) == {4}


def test_the_round_that_is_best_on_validation_clients_is_judged_on_test_clients_too(run, capsys):
    # Rates that rise: the last round is not the best one.
    settings = {"validation_clients": 3, "rounds": 8, "client_learning_rate": 2.0, "local_epochs": 3}
    directory = run(**settings, rounds_per_model=4)
    evaluations = pd.read_csv(directory / "evaluations.csv")
    judged = evaluations[(evaluations.split == "validation") & (evaluations.epoch == 2)]
    best = int(judged.loc[judged.accuracy_mean.idxmax(), "round"])
    found = json.loads((directory / "summary.json").read_text())["validation_round"]
    assert found["round"] == best
    assert f"round {best}: best evaluated round on validation clients" in capsys.readouterr().out
    models = saved_models.SavedModels(directory / "models")
    assert models.rounds() == sorted({4, 8, best})
    # A run that ends there has that model and those accuracies.
    shorter = run(**settings | {"rounds": best}, run_name="shorter")
    for a, b in zip(models.load(best), saved_models.SavedModels(shorter / "models").load(best), strict=True):
        np.testing.assert_array_equal(a, b)
    summary = json.loads((shorter / "summary.json").read_text())
    for when in ("initial_accuracy", "personalized_accuracy"):
        assert found[when] == summary[when]


def final_rows(directory, file="evaluations.csv"):
    """The final evaluation of the test clients."""
    table = pd.read_csv(directory / file)
    return table[(table["round"] == table["round"].max()) & (table.split == "test")]


def test_strategies_are_evaluated_in_one_pass(run, capsys):
    chosen = ["fine_tune", "fine_tune_head", "knn_per"]
    rows = final_rows(run(strategies=chosen))
    assert rows.strategy.unique().tolist() == chosen
    printed = capsys.readouterr().out
    assert all(f"\n  {names.strategy(name)} " in printed for name in chosen)
    assert rows[rows.epoch == 0].accuracy_mean.nunique() == 1
    last = rows[rows.epoch == 2].set_index("strategy").loss_mean
    # The last layer is the whole of a linear model.
    assert last.fine_tune == last.fine_tune_head != last.knn_per
    knn = rows[rows.strategy == "knn_per"]
    assert knn.loss_mean.iloc[1] == knn.loss_mean.iloc[2] != knn.loss_mean.iloc[0]


def test_strategy_epoch_and_learning_rate_are_chosen_only_on_validation_clients(run, capsys):
    settings = {
        "validation_clients": 2,
        "test_clients": 5,
        "strategies": ["fine_tune", "knn_per"],
        "personalization_learning_rates": ["0.0001", "0.05"],
        "rounds_per_evaluation": 0,
    }
    directory = run(**settings)
    summary, candidates = json.loads((directory / "summary.json").read_text()), pd.read_csv(directory / "choice.csv")
    assert set(candidates.split) == {"validation"}
    assert set(candidates.clients) == {2}
    tuned = candidates[candidates.strategy == "fine_tune"]
    assert tuned.groupby("learning_rate").epoch.apply(list).to_dict() == {0.0001: [0, 1, 2], 0.05: [0, 1, 2]}
    assert candidates[candidates.strategy == "knn_per"].learning_rate.isna().all()
    (chosen,) = candidates[candidates.chosen].itertuples()
    assert chosen.accuracy_mean == candidates.accuracy_mean.max()
    choice = summary["choice"]
    assert (choice["strategy"], choice["epoch"]) == (chosen.strategy, chosen.epoch)
    assert choice["validation_accuracy"] == pytest.approx(chosen.accuracy_mean)
    assert summary["test_clients"] == 5
    assert "chosen on 2 validation clients" in capsys.readouterr().out
    # The choice has the same results on test clients as a run with these settings.
    rate = {} if np.isnan(chosen.learning_rate) else {"personalization_learning_rate": chosen.learning_rate}
    fixed = {"personalization_learning_rates": None, "strategies": [chosen.strategy], "run_name": "fixed", **rate}
    rows = final_rows(run(**settings | fixed))
    assert choice["personalized_accuracy"]["mean"] == pytest.approx(
        rows[rows.epoch == chosen.epoch].accuracy_mean.item(), abs=1e-9
    )


def test_a_run_without_validation_clients_chooses_nothing(run, capsys):
    directory = run()
    assert json.loads((directory / "summary.json").read_text())["choice"] is None
    assert not (directory / "choice.csv").exists()
    assert "chosen" not in capsys.readouterr().out


@pytest.mark.parametrize("release", ["records", "aggregates"])
def test_accuracy_by_number_of_train_examples(run, capsys, release):
    directory = run(
        personalization_examples=["0", "4", "1000", "all"],
        strategies=["fine_tune", "fine_tune_head"],
        rounds_per_evaluation=0,
        evaluation_release=release,
    )
    table = pd.read_csv(directory / "k_shot.csv", dtype={"examples": str})
    assert table.examples.unique().tolist() == ["0", "4", "1000", "all"]
    assert table.groupby("examples").size().tolist() == [2 * 3] * 4

    def losses(examples):
        return table[table.examples == examples].loss_mean.to_numpy()

    without = losses("0").reshape(2, 3)
    np.testing.assert_array_equal(without, without[:, :1].repeat(3, axis=1))  # nothing to adapt to
    np.testing.assert_array_equal(losses("1000"), losses("all"))  # no client has more
    np.testing.assert_allclose(losses("all"), final_rows(directory).loss_mean)
    assert len({losses(k)[2] for k in ("0", "4", "all")}) == 3
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["by_examples"]["all"]["personalized_accuracy"] == summary["personalized_accuracy"]
    assert "fine-tuning by train examples of a client: 0: 0." in capsys.readouterr().out


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


@pytest.fixture
def text_file(tmp_path, monkeypatch):
    """Six made-up roles, each with a favourite word, in a database of TFF's form; for a small network."""
    small = functools.partial(char_lstm.build_char_lstm, units=32)
    monkeypatch.setitem(registry.TASKS["shakespeare"].models, "char_lstm", small)
    rng = np.random.default_rng(0)
    words = ("the", "a", "lord", "and", "sweet", "night")
    rows = []
    for role, favourite in enumerate(words):
        for split, count in (("train", 12 + role), ("test", 5)):
            for _ in range(count):
                said = " ".join(rng.choice([*words, *[favourite] * 6], rng.integers(3, 30)))
                rows.append((split, f"ROLE_{role}", small_files.serialize_snippet(said)))
    return small_files.write_sqlite(tmp_path / "roles.sqlite", rows)


@pytest.mark.parametrize("release", ["records", "aggregates"])
def test_the_next_character_is_learnt(run, text_file, release):
    settings = {
        "task": "shakespeare",
        "client_data": str(text_file),
        "model": None,
        "strategies": ["fine_tune"],
        "rounds": 6,
        "test_clients": 2,
        "batch_size": 4,
        "local_epochs": 1,
        "client_learning_rate": 1.0,
        "personalization_learning_rate": 2.0,
        "evaluation_release": release,
    }
    directory = run(**settings)
    config, summary = (json.loads((directory / f"{name}.json").read_text()) for name in ("config", "summary"))
    metrics = pd.read_csv(directory / "metrics.csv")
    assert config["flags"]["model"] == "char_lstm"
    assert config["source"] == "roles, 6 roles"
    assert (metrics.train_loss < np.log(90)).all()  # better than chance
    assert summary["initial_accuracy"]["mean"] < summary["personalized_accuracy"]["mean"] < 1
    if release == "records":
        clients = pd.read_csv(directory / "clients.csv")
        # Every sequence has 80 places; those of padding are no predictions.
        assert (clients.test_predictions > clients.test_examples).all()
        assert (clients.test_predictions < 80 * clients.test_examples).all()
        correct = clients.accuracy * clients.test_predictions
        np.testing.assert_allclose(correct, correct.round(), atol=1e-6)


def test_the_same_command_again_shows_the_finished_run_and_computes_nothing(run, capsys):
    directory = run()
    before = {path: path.stat().st_mtime_ns for path in directory.glob("*.*")}
    first = capsys.readouterr().out
    assert run() == directory
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in directory.glob("*.*")} == before


def test_a_network_that_is_refused_leaves_no_directory_and_removes_no_other_files(run, tmp_path, monkeypatch):
    task = registry.TASKS["emnist62"]
    models = {**task.models, "linear": lambda classes, rng: "no network"}
    monkeypatch.setitem(registry.TASKS, "emnist62", dataclasses.replace(task, models=models))
    with pytest.raises(errors.UserError, match="--model=linear: it is built as a str"):
        run()
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    with pytest.raises(errors.UserError, match="--model=linear"):
        run()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_finished_run_that_did_not_keep_the_models_that_are_asked_for_says_so(run, caplog):
    run(rounds=4, rounds_per_model=2)
    run(rounds=4, rounds_per_model=4)
    assert not caplog.messages
    directory = run(rounds=4, rounds_per_model=1)
    assert caplog.messages == [
        f"{directory} has computed 4 rounds and kept the models of rounds 2, 4 only: to keep those of "
        "--rounds_per_model=1, give another --run_name."
    ]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(run):
    one, two, other = (run(run_name=name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    for name in ("metrics.csv", "evaluations.csv", "clients.csv", "distribution.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
        assert (one / name).read_bytes() != (other / name).read_bytes()


def test_a_run_directory_of_other_settings_is_refused_and_the_setting_named(run, run_once):
    directory = run_once()
    before = {path: path.read_bytes() for path in directory.glob("*.*")}
    with pytest.raises(errors.UserError, match=r"clients_per_round was 3, is 2.*--run_name"):
        run(clients_per_round=2)
    assert {path: path.read_bytes() for path in directory.glob("*.*")} == before


def test_settings_that_change_no_number_do_not_make_another_run(run):
    directory = run(rounds_per_checkpoint=1)
    assert run(rounds_per_checkpoint=3, cores=1) == directory


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (run_writer.RunWriter, "release"),
        (run_writer.RunWriter, "append_evaluation"),
        (saved_models.SavedModels, "save"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_resumes_after_a_fault_while_a_round_was_recorded(run, run_once, monkeypatch, owner, name):
    settings = {"rounds": 6, "rounds_per_model": 2}
    write = getattr(owner, name)

    def fails_in_round_4(self, what, round_number, *more):
        if round_number == 4:
            raise ZeroDivisionError
        return write(self, what, round_number, *more)

    monkeypatch.setattr(owner, name, fails_in_round_4)
    with pytest.raises(ZeroDivisionError):
        run(run_name="faulty", **settings)
    monkeypatch.undo()
    directory = run(run_name="faulty", **settings)
    assert (directory / "checkpoints" / "round_3").exists()
    processes.assert_same_numbers(directory, run_once(run_name="whole", **settings))


def test_no_rounds_evaluate_the_untrained_model(run):
    directory = run(rounds=0)
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["rounds"] == 0
    assert np.isfinite(summary["initial_accuracy"]["mean"])
