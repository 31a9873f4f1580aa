"""Extreme but legal input: few clients, few or very many examples, no updates at all."""

import json

import numpy as np
import pandas as pd
import pytest

from tff_personalization import errors


@pytest.fixture
def archive(tmp_path):
    """Writes a by-writer archive of bars with a given number of examples for each writer."""

    def make(counts, labels=None):
        rng = np.random.default_rng(3)
        total = sum(counts)
        labels = rng.integers(0, 4, total) if labels is None else np.asarray(labels)
        images = rng.integers(0, 100, (total, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[5 * (label % 5) : 5 * (label % 5) + 4, 4:24] += 100
            image[[0, -1]] = image[:, [0, -1]] = 0
        path = tmp_path / "bars.npz"
        writer = np.repeat([f"w{i:03d}" for i in range(len(counts))], counts)
        np.savez(path, images=images, labels=labels, writer=writer)
        return str(path)

    return make


def read(directory):
    return json.loads((directory / "summary.json").read_text()), pd.read_csv(directory / "metrics.csv")


def test_one_client_cannot_train_and_test(run, archive):
    with pytest.raises(errors.UserError, match="has 1 client; at least two are needed"):
        run(client_data=archive([50]), test_clients=1)


def test_two_clients_are_enough(run, archive):
    summary, metrics = read(run(client_data=archive([30, 30]), test_clients=1))
    assert metrics.clients.tolist() == [1, 1, 1, 1]  # of the three that a round asks for
    assert summary["test_clients"] == 1


def test_clients_with_nothing_to_test_on_are_refused_before_anything_trains(run, archive):
    with pytest.raises(errors.UserError, match="none of the 4 test clients has a test example"):
        run(client_data=archive([1] * 8), rounds=2)


def test_a_client_with_very_many_examples_beside_clients_with_two(run, archive):
    directory = run(
        client_data=archive([20_000, *([2] * 7)]),
        clients_per_round=8,
        test_clients=2,
        seed=2,
        rounds=2,
        local_epochs=1,
        batch_size=500,
        rounds_per_evaluation=0,
    )
    _, metrics = read(directory)
    assert metrics.examples.tolist() == 2 * [16_000 + 5]
    assert np.isfinite(metrics.train_loss).all()


def test_learning_that_explodes_leaves_the_model_as_it_was_and_says_so(run, caplog):
    directory = run(client_learning_rate=3e38, local_epochs=5)
    summary, metrics = read(directory)
    assert metrics.clients.tolist() == [0] * 4
    assert metrics.non_finite_clients.tolist() == [3] * 4
    assert "3 of 3 clients sent an update that is not finite and is left out. No client is left" in caplog.text
    untrained, _ = read(run(rounds=1, client_learning_rate=1e-12, run_name="untrained"))
    assert summary["initial_accuracy"] == untrained["initial_accuracy"]


def test_a_class_that_no_train_client_has(run, archive):
    # The last two writers, and with any split some test writer's neighbours, write a class of their own.
    labels = [*(i % 3 for i in range(6 * 30)), *([61] * 60)]
    summary, metrics = read(run(client_data=archive([30] * 8, labels), test_clients=4))
    assert np.isfinite(metrics.train_loss).all()
    assert 0 <= summary["initial_accuracy"]["mean"] <= 1


def test_a_cohort_of_all_that_mostly_drops_out(run):
    _, metrics = read(run(clients_per_round=50, client_dropout_probability=0.9, rounds=6))
    assert (metrics.clients + metrics.dropped_clients == 8).all()
    assert metrics.clients.min() >= 1
    assert np.isfinite(metrics.train_loss).all()


@pytest.mark.parametrize("name", ["../run", "a/b", "..", "/tmp/run"])
def test_a_run_directory_is_in_the_output_directory(run, name):
    with pytest.raises(errors.UserError, match=r"--run_name=.* without slashes"):
        run(run_name=name)
