"""The contract of every method, including the example plugin's."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from analysis import names
from tests import processes
from tests.contracts import method_bytes
from tests.contracts.made_up_rounds import Round, client
from tff_personalization import local_training, methods
from tff_personalization.records import client_states, saved_models
from tff_personalization.tasks import federated_data

LOCAL_STEPS = {"local_epochs": None, "local_steps": 4}
# A method's settings besides the small settings of all.
SETTINGS = {
    "fed_avg": {},
    "reptile": LOCAL_STEPS,
    "personalized_fed_avg": {"local_steps": 4, "stage_2_round": 3},
    "fomaml": LOCAL_STEPS,
    "maml": LOCAL_STEPS,
    "per_fed_avg": LOCAL_STEPS,
    "meta_sgd": LOCAL_STEPS,
    "ifca": {"clusters": 2},
    "fed_recon": {"head_epochs": 1},
    "fed_per": {},
    "fed_rep": {"head_epochs": 1},
    "fed_bn": {"model": "cnn_group_norm"},
    "fed_babu": {},
    "fed_ala": {"ala_first_epochs": 2},
    "fed_rod": {},
    "fed_proto": {},
    "fed_amp": {},
    "ditto": {},
    "p_fed_me": LOCAL_STEPS,
    "apfl": {},
    "fed_prox": {},
    "scaffold": {},
    "mime_lite": {},
    "fed_sgd": {"local_epochs": None, "batch_size": None},
    "fed_avg_terms": {"update_term": "fomaml"},
    "centralized": {},
    "local_only": dict.fromkeys(
        (
            *("local_epochs", "batch_size", "clients_per_round"),
            *("rounds", "rounds_per_evaluation", "rounds_per_checkpoint"),
        )
    ),
    "fed_prox_example": {"strategies": "fine_tune,recentre"},  # a plugin's
}
TRAINED = [name for name in SETTINGS if name != "local_only"]
EVERY = pytest.mark.parametrize("method", SETTINGS)
EVERY_TRAINED = pytest.mark.parametrize("method", TRAINED)
# What a run releases depends on the evaluation, and test_strategies has its aggregates for all strategies. So one
# method is enough of those whose clients keep nothing, of those whose clients keep a model and of those without rounds.
ONE_OF_EACH_KIND = pytest.mark.parametrize("method", ["fed_avg", "fed_per", "local_only"])


def test_the_contracts_are_of_all_methods(plugin):
    assert set(SETTINGS) == set(methods.METHODS)
    assert [name for name in methods.METHODS if methods.get(name).trains] == TRAINED


def settings_of(method):
    """The settings of a run. Of the method's strategies it has the main one, which is one graph for all evaluations."""
    return {"method": method, "strategies": methods.get(method).strategies[0], **SETTINGS[method]}


@EVERY
def test_its_own_strategies_follow_unless_others_are_given(program, method):
    experiment = program.experiment(**{**settings_of(method), "strategies": None})
    assert tuple(experiment.config.strategies) == tuple(methods.get(method).strategies)


@pytest.fixture
def finished(program, method):
    """A run of the method, made once."""
    return program.run(f"{method}-whole", **settings_of(method))


@EVERY
def test_it_leaves_its_records_and_a_report(capsys, finished, method):
    summary = json.loads((finished / "summary.json").read_text())
    clients = pd.read_csv(finished / "clients.csv")
    strategies = settings_of(method)["strategies"].split(",")
    assert set(clients.strategy) == set(strategies)
    assert clients.client.nunique() == summary["test_clients"] == 6
    assert len(clients) == 6 * len(strategies) * 2
    main = clients[clients.strategy == strategies[0]]
    for when, epoch in (("initial", 0), ("personalized", 1)):
        accuracy = main[main.epoch == epoch].accuracy
        assert summary[f"{when}_accuracy"]["mean"] == pytest.approx(accuracy.mean())
        assert summary[f"{when}_accuracy"]["sd"] == pytest.approx(accuracy.std(ddof=0))
    evaluations = pd.read_csv(finished / "evaluations.csv")
    final = evaluations[(evaluations.split == "test") & (evaluations.strategy == strategies[0])]
    assert final.accuracy_mean.tolist() == pytest.approx(main.groupby("epoch").accuracy.mean().tolist())
    if method in TRAINED:
        metrics = pd.read_csv(finished / "metrics.csv")
        assert metrics["round"].tolist() == [1, 2, 3]
        assert (metrics.extra_examples > 0).tolist() == 3 * [method in EXTRA_VISITS]
        assert metrics.initial_accuracy.notna().tolist() == [False, True, False]
        assert np.isfinite(metrics.train_loss).all()
        assert list((finished / "tensorboard").iterdir())
    assert names.strategy(strategies[0]) in capsys.readouterr().out


@EVERY
def test_a_client_without_test_examples_has_no_accuracy_and_counts_in_no_mean(finished, method):
    clients = pd.read_csv(finished / "clients.csv")
    without = clients.test_examples == 0
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["test_clients_without_test_data"] == clients[without].client.nunique() > 0
    assert clients.accuracy.isna().tolist() == without.tolist()
    evaluations = pd.read_csv(finished / "evaluations.csv")
    assert set(evaluations[evaluations.split == "test"].clients) == {clients[~without].client.nunique()}


@EVERY
def test_the_summary_has_the_bytes_that_clients_receive_send_and_keep(finished, method):
    found = json.loads((finished / "summary.json").read_text()).get("communication")
    if method == "centralized":
        assert found is None
    elif method == "local_only":
        assert found == {"stages": {}, "down": 0, "up": 0}
    else:
        down, up, kept = method_bytes.expected(method, saved_models.SavedModels(finished / "models").load(3))
        assert list(found["stages"].values()) == len(found["stages"]) * [{"down": down, "up": up, "kept": kept}]
        clients = pd.read_csv(finished / "metrics.csv").clients.sum()
        assert (found["down"], found["up"]) == (down and down * clients, up * clients)


KEEP_A_MODEL = (
    *("fed_per", "fed_rep", "fed_bn", "fed_ala", "fed_rod", "fed_proto", "fed_amp"),
    *("ditto", "p_fed_me", "apfl"),
)


@EVERY_TRAINED
def test_participants_are_judged_on_their_own_test_parts_where_clients_keep_a_model(program, finished, method):
    """The mean of `kept` is that of the models that clients keep, as the process itself gives them."""
    summary = json.loads((finished / "summary.json").read_text())
    assert (finished / "participants.csv").exists() == ("participants" in summary) == (method in KEEP_A_MODEL)
    if method not in KEEP_A_MODEL:
        return
    table, metrics = (pd.read_csv(finished / f"{name}.csv") for name in ("participants", "metrics"))
    held_out = set(pd.read_csv(finished / "clients.csv").client)
    main = methods.get(method).strategies[0]
    assert set(table.strategy) == {main, "kept"}
    assert not held_out & set(table.client)
    assert table.client.nunique() == summary["participants"]["clients"] <= metrics.clients.sum()
    for name, figures in summary["participants"]["strategies"].items():
        rows = table[(table.strategy == name) & (table.test_examples > 0)]
        for when, epoch in (("initial", 0), ("personalized", 1)):
            assert figures[f"{when}_accuracy"]["mean"] == pytest.approx(rows[rows.epoch == epoch].accuracy.mean())
    process = program.training(method, **SETTINGS[method]).stages[0].process
    states = client_states.ClientStates(finished / "client_states")
    experiment = program.experiment(method=method, **SETTINGS[method])
    weights = saved_models.SavedModels(finished / "models").load(3)
    data = federated_data.load(experiment.config)
    for member, rows in table[table.strategy == "kept"].groupby("client"):
        (kept,) = states.read([member], process.client_state, 1)
        model, own = process.personal(tuple(weights), kept)
        loss, correct = local_training.evaluate(
            model, tuple(map(tf.constant, own)), local_training.Examples(*data.test.examples(member))
        )
        assert rows[rows.epoch == 1].correct.item() == correct
        assert np.nan_to_num(rows[rows.epoch == 1].loss.item()) == pytest.approx(
            float(loss) / max(len(data.test.examples(member)[1]), 1), abs=1e-5
        )


def test_participants_of_a_method_without_kept_models_are_judged_when_asked_for(program):
    directory = program.run("fed_avg-participants", method="fed_avg", participants=4, **SETTINGS["fed_avg"])
    table = pd.read_csv(directory / "participants.csv")
    assert (table.client.nunique(), set(table.strategy)) == (4, {"fine_tune"})


@EVERY_TRAINED
def test_a_run_that_was_killed_is_resumed_and_ends_with_the_numbers_of_one_that_was_not(program, finished, method):
    """As if it was killed after the checkpoint of round 2, with round 3 already on record."""
    cut = finished.with_name(f"{method}-cut")
    shutil.copytree(finished, cut)
    for name in ("summary.json", "clients.csv", "distribution.csv"):
        (cut / name).unlink()
    shutil.rmtree(cut / "checkpoints" / "round_3")
    program.run(cut.name, **settings_of(method))
    processes.assert_same_numbers(cut, finished)


@ONE_OF_EACH_KIND
def test_a_run_that_releases_aggregates_has_the_rounds_and_the_means_of_one_that_releases_records(
    program, finished, method
):
    """The same seed gives the same rounds, byte by byte."""
    directory = program.run(f"{method}-aggregates", evaluation_release="aggregates", **settings_of(method))
    assert not (directory / "clients.csv").exists()
    one, two = (pd.read_csv(path / "evaluations.csv") for path in (directory, finished))
    exact = ["round", "split", "strategy", "epoch", "clients", "share_gaining", "share_hurt"]
    pd.testing.assert_frame_equal(one[exact], two[exact])
    for column in ("accuracy_mean", "accuracy_weighted_mean", "loss_mean", "gain_mean"):
        np.testing.assert_allclose(one[column], two[column], atol=1e-5)
    one, two = (json.loads((path / "summary.json").read_text()) for path in (directory, finished))
    for when in ("initial", "personalized"):
        for figure in ("mean", "weighted_mean"):
            assert one[f"{when}_accuracy"][figure] == pytest.approx(two[f"{when}_accuracy"][figure], abs=1e-6)
    assert one["share_hurt"] == pytest.approx(two["share_hurt"])
    assert (directory / "distribution.csv").read_bytes() == (finished / "distribution.csv").read_bytes()
    if method in TRAINED:
        trained = ["round", "stage", "clients", "examples", "train_loss", "train_accuracy"]
        pd.testing.assert_frame_equal(
            *(pd.read_csv(path / "metrics.csv")[trained] for path in (directory, finished)), check_exact=True
        )


# Rounds of the process itself, whose clients are made up.


@pytest.fixture
def rounds(program, method):
    """A round of each stage of the method."""
    return [Round(stage.process) for stage in program.training(method, **SETTINGS[method]).stages]


def assert_equal(weights, others):
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(one, other)


def differ(weights, others):
    return any(np.any(one != other) for one, other in zip(weights, others, strict=True))


# Their global model stays the initial one; only the models that clients keep are trained.
WITHOUT_A_GLOBAL_MODEL = ("fed_proto", "fed_amp")


@EVERY_TRAINED
def test_a_round_again_gives_the_same_weights_and_training_moves_them(rounds, method):
    for round_ in rounds:
        weights, metrics, kept = round_([client(8), client(5)])
        again, _, kept_again = round_([client(8), client(5)])
        assert_equal(weights, again)
        assert_equal(tf.nest.flatten(kept), tf.nest.flatten(kept_again))
        assert differ(weights, round_.weights_of(round_.start)) == (method not in WITHOUT_A_GLOBAL_MODEL)
        for state in kept:
            assert differ(tf.nest.flatten(state), tf.nest.flatten(round_.kept))
        assert (metrics["clients"], metrics["non_finite_clients"]) == (2, 0)


@EVERY_TRAINED
def test_a_client_without_train_examples_changes_nothing(rounds):
    for round_ in rounds:
        alone, of_one, _ = round_([client(8)])
        weights, metrics, kept = round_([client(8), client(0)])
        assert_equal(weights, alone)
        assert metrics == of_one
        for state in kept[1:]:
            assert_equal(state, round_.kept)
        weights, metrics, _ = round_([client(0)])
        assert_equal(weights, round_.weights_of(round_.start))
        assert_equal(tf.nest.flatten(round_.after), tf.nest.flatten(round_.start))
        assert (metrics["clients"], metrics["examples"], metrics["non_finite_clients"]) == (0, 0, 0)


@EVERY_TRAINED
def test_a_client_with_one_example_takes_part(rounds, method):
    for round_ in rounds:
        weights, metrics, _ = round_([client(1)])
        assert all(np.isfinite(part).all() for part in weights)
        # fed_recon's only example is of the half that trains the head, which the client does not send.
        taken_part = 0 if method == "fed_recon" else 1
        assert (metrics["clients"], metrics["non_finite_clients"]) == (taken_part, 0)
        moved = taken_part and method not in WITHOUT_A_GLOBAL_MODEL
        assert differ(weights, round_.weights_of(round_.start)) == moved or method == "fed_avg_terms"


@EVERY_TRAINED
def test_a_client_whose_update_is_not_finite_is_left_out_and_counted(rounds, method):
    """Under filters of 1e38, features of bright images overflow, and those of black images are zero."""
    for round_ in rounds:
        huge = [np.full_like(w, 1e38) if w.ndim == 4 else w for w in round_.weights_of(round_.start)]
        if method in WITHOUT_A_GLOBAL_MODEL:  # whose clients start from what they keep
            round_.kept = (*huge, *round_.kept[len(huge) :])
            huge = round_.weights_of(round_.start)
        start = round_.with_weights(huge)
        black, bright = client(8, brightness=0), client(5)
        alone, of_one, _ = round_([black], start)
        weights, metrics, kept = round_([black, bright], start)
        assert (of_one["clients"], of_one["non_finite_clients"]) == (1, 0)
        assert_equal(weights, alone)
        assert metrics == of_one | {"non_finite_clients": 1}
        for state in kept[1:]:
            assert_equal(state, round_.kept)
        weights, metrics, _ = round_([bright], start)
        assert_equal(weights, huge)
        assert (metrics["clients"], metrics["non_finite_clients"]) == (0, 1)


# The visits of examples of a client with 8 in batches of 4, and those of a straggler with half the steps.
VISITS = {
    **dict.fromkeys(("fomaml", "maml", "meta_sgd"), (4 * 4 + 4, 2 * 4 + 4)),  # all of the query part
    "fed_recon": (2 * 4, 1 * 4),  # two epochs of half the examples
    **dict.fromkeys(("ditto", "apfl"), (2 * 4 * 4, 2 * 2 * 4)),  # two models
    "p_fed_me": (4 * 5 * 4, 2 * 5 * 4),  # five steps with a batch
}
# The visits that this count leaves out, likewise.
EXTRA_VISITS = {
    "per_fed_avg": (4 * 3 * 4, 2 * 3 * 4),  # one gradient on D′ and two on D″ in each step
    "ifca": (2 * 8, 2 * 8),  # the losses of two models
    "fed_recon": (4, 4),  # one epoch of the head on half the examples, which is one batch
    "fed_rep": (8, 4),  # one epoch of the head
    "fed_proto": (8, 8),  # the means of features
    "mime_lite": (8, 8),  # the gradient on all examples
}


@pytest.mark.parametrize("method", [name for name in TRAINED if name not in ("fed_sgd", "centralized")])
def test_a_straggler_does_its_share_of_the_steps_and_all_visits_are_counted(rounds, method):
    for round_ in rounds:
        whole, of_straggler = (round_([client(8, share=share)])[1] for share in (1.0, 0.5))
        visits, extra = ((whole[name], of_straggler[name]) for name in ("examples", "extra_examples"))
        assert visits == VISITS.get(method, (4 * 4, 2 * 4))
        assert extra == EXTRA_VISITS.get(method, (0, 0))
