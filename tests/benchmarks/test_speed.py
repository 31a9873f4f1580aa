"""The table of the speed benchmark."""

import importlib.util
import sys

import pandas as pd
import pytest

from benchmarks import recording, speed
from benchmarks.peers import environments


def test_the_summary_is_medians_and_how_many_times_as_fast_ours_is():
    table = pd.DataFrame(
        {
            "contender": ["ours", "stock", "ours", "stock", "ours", "stock"],
            "per_second": [300.0, 90.0, 200.0, 100.0, 10.0, 160.0],
        }
    )
    summary = speed.summarize(table)
    assert list(summary.index) == ["ours", "stock"]
    assert summary.loc["ours"].tolist() == [200, 10, 300, 1]
    assert summary.loc["stock"].tolist() == [100, 90, 160, 2]


def test_a_contender_answers_with_its_versions_and_with_seconds():
    code = (
        "from benchmarks import workload; print('a line of another kind'); "
        "workload.serve(lambda: sum(range(10**5)), tool='1.2')"
    )
    contender = speed._Contender([sys.executable, "-c", code], recording.ROOT)
    assert contender.versions == {"tool": "1.2"}
    seconds, processor_seconds = zip(*(contender.round_seconds() for _ in range(2)), strict=True)
    assert min(seconds) > 0
    assert min(processor_seconds) >= 0
    contender.close()


@pytest.mark.parametrize("task", ["training", "reptile"])
def test_contenders_are_modules_that_exist_and_peers_without_an_environment_are_none(task, monkeypatch):
    monkeypatch.setattr(environments, "python_of", lambda module: "python")
    for name, (_, minus_m, module, *_) in speed._commands(task).items():
        assert minus_m == "-m"
        assert importlib.util.find_spec(module), name
    monkeypatch.setattr(environments, "python_of", lambda module: None)
    left_out = {name for name, command in speed._commands(task).items() if command is None}
    assert left_out == (set(speed.PEERS) if task == "training" else set())
