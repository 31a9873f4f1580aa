"""The growth benchmark: its points, its rows, and small rounds of each kind."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import growth, growth_point
from benchmarks.growth_point import Point
from tff_personalization.tasks import client_arrays

FED_AVG = Point("cohort", 2, 3, examples=20, rounds=2, local_epochs=2)
REPTILE = Point("client_cost", 2, 3, examples=40, rounds=2, method="reptile", local_steps=3, warm_up_clients=1)
EVALUATION = Point("evaluation", 3, 3, examples=20, rounds=2, method="evaluation", test_examples=5)


def test_visits_of_a_round_by_hand():
    assert (FED_AVG.visits, REPTILE.visits, EVALUATION.visits) == (2 * 20 * 2, 2 * 3 * 20, 3)


def test_each_sweep_names_its_points_and_lets_one_thing_grow():
    for sweep, points in growth.SWEEPS.items():
        assert {point.sweep for point in points} == {sweep}
        assert len(set(points)) == len(points)
        assert all(point.rounds >= 3 or point.clients >= 500 for point in points)
        assert all(point.clients <= point.population for point in points)
    assert [p.clients for p in growth.SWEEPS["cohort"]] == [5, 20, 100, 500, 1000]
    assert [p.population for p in growth.SWEEPS["population"]] == [100, 3_400, 100_000]
    assert [p.local_epochs for p in growth.SWEEPS["local_epochs"]] == [1, 2, 5, 10, 20]
    assert [p.clients for p in growth.SWEEPS["evaluation"]] == [20, 100, 900]


def test_a_row_has_the_median_and_the_extremes_of_its_rounds():
    measured = {
        "load_seconds": 0.25,
        "first_round_seconds": 9.0,
        "seconds": [4.0, 1.0, 2.0],
        "python_mb": 800.4,
        "worker_mb": 300.6,
        "versions": {"tensorflow": "2", "tensorflow-federated": "0"},
    }
    row = growth.row(FED_AVG, measured)
    expected = {"sweep": "cohort", "clients": 2, "population": 3, "examples": 20, "rounds": 2, "local_epochs": 2}
    expected |= {"visits": 80, "seconds": 2.0, "seconds_least": 1.0, "seconds_most": 4.0, "per_second": 40.0}
    expected |= {"load_seconds": 0.25, "first_round_seconds": 9.0, "python_mb": 800, "worker_mb": 301}
    assert expected.items() <= row.items()
    assert row["versions"] == "tensorflow=2 tensorflow-federated=0"
    assert set(growth._SHOWN) <= set(row)


def test_the_cost_of_a_round_a_client_and_a_step_is_found_again():
    points = growth.SWEEPS["client_cost"]
    rows = [
        {"sweep": "client_cost", "clients": p.clients, "local_steps": p.local_steps}
        | {"seconds": 0.1 + p.clients * (0.02 + p.local_steps * 0.003)}
        for p in points
    ]
    other = {"sweep": "cohort", "clients": 9, "local_steps": 9, "seconds": 99.0}
    assert growth.round_cost(pd.DataFrame([*rows, other])) == pytest.approx((0.1, 0.02, 0.003))


def test_a_population_comes_from_the_cache_with_its_examples(tmp_path):
    made = growth_point.archive(EVALUATION, str(tmp_path))
    kept = growth_point.archive(EVALUATION, str(tmp_path))
    np.testing.assert_array_equal(made.images, kept.images)
    assert not kept.images.flags.writeable
    train, test = client_arrays.to_client_data(kept)
    assert [train.num_examples(client) for client in train.client_ids] == [20, 20, 20]
    assert [test.num_examples(client) for client in test.client_ids] == [5, 5, 5]


@pytest.mark.parametrize("point", [FED_AVG, REPTILE, EVALUATION], ids=lambda point: point.method)
def test_a_point_is_measured_and_its_work_checked(tmp_path, point):
    measured = json.loads(json.dumps(growth_point.measure(point, str(tmp_path))))
    assert len(measured["seconds"]) == 2
    assert min(measured["seconds"]) > 0
    assert measured["first_round_seconds"] > max(measured["seconds"])
    assert measured["load_seconds"] > 0
    assert 50 < measured["worker_mb"] < 5_000
    assert measured["python_mb"] > 200
    assert growth.row(point, measured)["per_second"] > 0


def test_a_round_of_another_size_than_said_is_an_error(tmp_path, worker):
    parts = client_arrays.to_client_data(growth_point.archive(FED_AVG, str(tmp_path)))
    short = dataclasses.replace(FED_AVG, examples=21)
    with pytest.raises(RuntimeError, match="counted 80 examples and not 84"):
        growth_point._training(short, *parts)(2)
