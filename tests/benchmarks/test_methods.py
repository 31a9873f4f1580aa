"""The cost of a round of each method: which methods take part, their rounds, and the ratios to FedAvg."""

import pandas as pd
import pytest

from benchmarks import methods as benchmark
from tff_personalization import methods


def _visits_of_ten_steps(examples):
    """In batches of 20; the last batch of an epoch has the rest of the examples."""
    epochs, steps = divmod(10, -(-examples // 20))
    return epochs * examples + 20 * steps


@pytest.mark.usefixtures("worker")
def test_methods_train_on_the_same_clients_in_turn(monkeypatch):
    """FedAvg visits each example of the cohort twice; Reptile takes ten steps of twenty examples for each client."""
    small = {"model": "linear", "num_clients": 4, "test_clients": 1, "validation_clients": 0, "clients_per_round": 2}
    monkeypatch.setattr(benchmark, "_SHARED", benchmark._SHARED | small)
    monkeypatch.setattr(benchmark, "WARM_UP", 1)
    table = benchmark.measure(["fed_avg", "reptile"], 2)
    assert table["method"].tolist() == ["fed_avg", "reptile"] * 2
    of_fed_avg = [visits for name, visits in zip(table["method"], table["visits"], strict=True) if name == "fed_avg"]
    cohorts = [benchmark.contender("fed_avg").training.cohort(turn) for turn in (2, 3)]
    examples = [[len(value.get_single_element()["y"]) for value in cohort.values] for cohort in cohorts]
    assert of_fed_avg == [2 * sum(counts) for counts in examples]
    of_reptile = table[table["method"] == "reptile"]["visits"].tolist()
    assert of_reptile == [sum(map(_visits_of_ten_steps, counts)) for counts in examples]
    assert (table["processor_seconds"] > 0).all()
    weights = 4 * (784 * 62 + 62)
    assert table["bytes_down"].between(weights, weights + 100).all()


def test_every_method_that_trains_takes_part():
    assert {name.partition("-")[0] for name in benchmark.NAMES} == {*methods.METHODS} - {"local_only"}


def test_ratios_are_to_fed_avg_in_the_same_turn():
    columns = ["method", "repetition", "processor_seconds", "visits", "bytes_down", "bytes_up", "bytes_kept"]
    table = pd.DataFrame(
        [
            ["fed_avg", 0, 2.0, 100, 5e6, 5e6, 0],
            ["ditto", 0, 4.0, 200, 5e6, 5e6, 5e6],
            ["fed_avg", 1, 4.0, 300, 5e6, 5e6, 0],
            ["ditto", 1, 12.0, 600, 5e6, 5e6, 5e6],
        ],
        columns=columns,
    )
    row = benchmark.summarize(table).loc["ditto"]
    assert row.tolist() == [2.5, 2.0, 3.0, 2.0, 5.0, 5.0, 5.0]
