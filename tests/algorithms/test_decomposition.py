"""FedAvg's update decomposed, against NumPy, and as a tool on a run."""

import itertools

import numpy as np
import pandas as pd
import pytest
import tensorflow_federated as tff

from baselines import fed_avg_terms
from tests import numpy_oracle
from tests.setups import BATCH, RATE, setup
from tff_personalization import cohorts, errors, schedules
from tff_personalization.algorithms import decomposition, fed_avg
from tff_personalization.models import emnist_cnn
from tff_personalization.records import saved_models
from tff_personalization.tools import decompose

EPOCHS = 3
SEED = np.array([3, 4], np.int32)


def flat(weights):
    return np.concatenate([np.ravel(w) for w in weights])


def parts_of(path, steps_per_epoch):
    """θ − φ_1, φ_1 − φ_J/E, and the part of each further epoch, from the models of a client's path."""
    ends = [0, 1, *(epoch * steps_per_epoch for epoch in range(1, EPOCHS + 1))]
    return np.stack([flat(path[a]) - flat(path[b]) for a, b in itertools.pairwise(ends)])


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("schedule", "round_number", "factor"),
    [(None, 1, 1.0), (schedules.Schedule("exponential", 0.5), 3, 0.25)],
    ids=["one rate", "a rate for each round"],
)
def test_parts_of_clients_and_of_their_mean_equal_numpy(schedule, round_number, factor):
    rng = np.random.default_rng(1)
    clients = [(rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 5, n).astype(np.int32)) for n in (10, 3)]
    model = emnist_cnn.build_linear(5, np.random.default_rng(0))
    sgd = tff.learning.optimizers.build_sgdm(RATE)
    if schedule:
        sgd = schedules.for_clients(sgd, schedule, rounds=4)
    computation = decomposition.build_decomposition(model, sgd, EPOCHS, BATCH, shuffle=False)
    weights = tff.learning.models.ModelWeights(model.initial_weights[0], ())
    found = computation(weights, [cohorts.client_value(*client, SEED, round_number) for client in clients])
    theta = [w.astype(np.float64) for w in model.initial_weights[0]]
    expected = []
    for images, labels in clients:
        per_epoch = -(-len(labels) // BATCH)
        path = numpy_oracle.local_sgd(theta, images, labels, factor * RATE, BATCH, EPOCHS * per_epoch)
        expected.append(parts_of(path, per_epoch))
    for products, parts in zip(found["clients"], expected, strict=True):
        np.testing.assert_allclose(products, parts @ parts.T, atol=1e-5)
    mean = (10 * expected[0] + 3 * expected[1]) / 13
    np.testing.assert_allclose(found["cohort"], mean @ mean.T, atol=1e-5)
    # For a client with one batch an epoch, part 0 has all steps of the first epoch.
    np.testing.assert_allclose(found["clients"][1][1], 0, atol=1e-9)


@pytest.mark.usefixtures("worker")
def test_a_round_of_one_term_is_that_term_and_both_are_fed_avg():
    rng = np.random.default_rng(1)
    clients = [(rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 5, n).astype(np.int32)) for n in (10, 7)]
    model = emnist_cnn.build_linear(5, np.random.default_rng(0))
    uniform = {"local_epochs": EPOCHS, "client_weighting": "uniform"}
    theta = [w.astype(np.float64) for w in model.initial_weights[0]]
    paths = [numpy_oracle.local_sgd(theta, *c, RATE, BATCH, EPOCHS * -(-len(c[1]) // BATCH)) for c in clients]
    deltas = {
        "fed_sgd": [flat(path[0]) - flat(path[1]) for path in paths],
        "fomaml": [flat(path[1]) - flat(path[-1]) for path in paths],
    }
    stragglers = [cohorts.client_value(*client, SEED, step_share=0.5) for client in clients]
    steps, visited = {}, {}
    for term, expected in deltas.items():
        process = fed_avg_terms.build_fed_avg_terms(setup(fed_avg_terms, model, update_term=term, **uniform))
        state = process.next(process.initialize(), [cohorts.client_value(*client, SEED) for client in clients]).state
        steps[term] = flat(theta) - flat(process.get_model_weights(state).trainable)
        np.testing.assert_allclose(steps[term], np.mean(expected, axis=0), atol=1e-5)
        slow = process.next(process.initialize(), stragglers)
        visited[term] = slow.metrics["client_work"]["examples"]
    for term, expected in deltas.items():
        process = fed_avg_terms.build_fed_avg_terms(
            setup(fed_avg_terms, model, update_term=term, equal_norms=True, **uniform)
        )
        state = process.next(process.initialize(), [cohorts.client_value(*client, SEED) for client in clients]).state
        scaled = [
            delta * np.linalg.norm(flat(path[0]) - flat(path[-1])) / np.linalg.norm(delta)
            for delta, path in zip(expected, paths, strict=True)
        ]
        step = flat(theta) - flat(process.get_model_weights(state).trainable)
        np.testing.assert_allclose(step, np.mean(scaled, axis=0), atol=1e-5)
    whole = fed_avg.build_fed_avg(setup(fed_avg, model, **uniform))
    state = whole.next(whole.initialize(), [cohorts.client_value(*client, SEED) for client in clients]).state
    step = flat(theta) - flat(whole.get_model_weights(state).trainable)
    np.testing.assert_allclose(steps["fed_sgd"] + steps["fomaml"], step, atol=1e-5)
    # A straggler's share of its 9 or 6 steps is rounded up once: 5 and 3 of them.
    of_fed_avg = whole.next(whole.initialize(), stragglers).metrics["client_work"]["examples"]
    assert visited == dict.fromkeys(deltas, of_fed_avg)
    assert of_fed_avg == (4 + 4 + 2 + 4 + 4) + (4 + 3 + 4)


def test_shares_add_up_to_one_and_an_orthogonal_part_has_that_of_its_square():
    parts = np.array([[3.0, 0.0], [0.0, 4.0]])
    table = decompose.measures((parts @ parts.T)[np.newaxis])
    assert table.share.tolist() == pytest.approx([9 / 25, 16 / 25])
    assert table.relative_norm.tolist() == pytest.approx([3 / 5, 4 / 5])
    assert table.cosine_with_fed_sgd.tolist() == pytest.approx([1, 0])


def test_the_update_of_fewer_epochs_is_that_of_a_path_that_ends_after_them():
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (10, 28, 28), np.uint8), rng.integers(0, 5, 10).astype(np.int32)
    theta = [w.astype(np.float64) for w in emnist_cnn.build_linear(5, np.random.default_rng(0)).initial_weights[0]]
    per_epoch = 3
    path = numpy_oracle.local_sgd(theta, images, labels, RATE, BATCH, EPOCHS * per_epoch)
    parts = parts_of(path, per_epoch)
    table = decompose.by_epochs((parts @ parts.T)[np.newaxis])
    assert table.epochs.tolist() == [1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert table.part.tolist() == [0, 1, 0, 1, 2, 0, 1, 2, 3]
    for epochs, rows in table.groupby("epochs"):
        update = flat(path[0]) - flat(path[epochs * per_epoch])
        norms, shares = np.linalg.norm(parts, axis=1), parts @ update / (update @ update)
        assert rows.share.tolist() == pytest.approx(shares[: epochs + 1].tolist())
        assert rows.relative_norm.tolist() == pytest.approx((norms / np.linalg.norm(update))[: epochs + 1].tolist())


def test_the_tool_takes_each_kept_model_of_a_run_apart(run, capsys):
    directory = run(rounds=4, rounds_per_model=2, local_epochs=3)
    table = decompose.decompose(directory)
    assert table["round"].unique().tolist() == saved_models.SavedModels(directory / "models").rounds() == [2, 4]
    sums = table.groupby(["round", "level", "epochs"]).share.sum()
    assert sums.to_numpy() == pytest.approx(np.ones(12), abs=1e-4)
    assert table[table.part == 0].cosine_with_fed_sgd.tolist() == pytest.approx(np.ones(12), abs=1e-4)
    capsys.readouterr()
    assert decompose.main(["decompose", str(directory)]) == 0
    assert len(capsys.readouterr().out.split("\n\n")[0].splitlines()) == 1 + 2 * 4  # the whole update of the last model
    written = pd.read_csv(directory / "decomposition.csv")
    assert len(written) == 2 * 2 * (2 + 3 + 4)
    columns = ["round", "level", "epochs", "part", "relative_norm", "cosine_with_fed_sgd", "share"]
    assert written.columns.tolist() == columns


def test_the_tool_repeats_rounds_whose_clients_drop_out_and_whose_rate_changes(run, monkeypatch):
    directory = run(
        rounds=3,
        rounds_per_model=1,
        clients_per_round=6,
        client_dropout_probability=0.5,
        client_learning_rate_schedule="cosine",
        client_learning_rate=0.1,
        server_sgd_momentum=0.0,
    )
    assert pd.read_csv(directory / "metrics.csv").dropped_clients.min() > 0
    products, by_epochs = [], decompose.by_epochs
    monkeypatch.setattr(decompose, "by_epochs", lambda found: products.append(found) or by_epochs(found))
    table = decompose.decompose(directory)
    assert table["round"].unique().tolist() == [1, 2]  # after the last round, the cosine's rate is zero
    models = saved_models.SavedModels(directory / "models")
    steps = [flat(models.load(number)) - flat(models.load(number + 1)) for number in (1, 2)]
    of_cohorts = [found.sum() for found in products[1::2]]
    assert of_cohorts == pytest.approx([step @ step for step in steps], rel=1e-3)


@pytest.mark.parametrize(
    ("flag", "value"), [("aggregator", "robust"), ("client_weighting", "uniform"), ("straggler_probability", 0.5)]
)
def test_a_run_whose_updates_are_other_ones_is_refused_by_the_flag(finished_run, flag, value):
    directory = finished_run(model="linear", **{flag: value})
    with pytest.raises(errors.UserError, match=rf"--{flag}={value}[^\n]*$"):
        decompose.decompose(directory)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"method": "reptile", "local_epochs": None, "local_steps": 3}, "--method=fed_avg"), ({}, "no models")],
    ids=["another method", "no models"],
)
def test_a_run_that_cannot_be_decomposed_is_refused(run, settings, message):
    directory = run(rounds=1, **settings)
    saved_models.SavedModels(directory / "models").keep([])
    with pytest.raises(errors.UserError, match=message):
        decompose.decompose(directory)


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="not a run directory"):
        decompose.decompose(tmp_path)
