"""The table of the speed benchmark."""

import sys

import pandas as pd

from benchmarks import contenders, speed


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
    contender = speed._Contender([sys.executable, "-c", code])
    assert contender.versions == {"tool": "1.2"}
    assert [contender.round_seconds() > 0 for _ in range(2)] == [True, True]
    contender.close()


def test_bounds_and_peers_take_part_where_they_mean_something():
    assert set(speed._commands("reptile")) == set(contenders.BUILDERS) - {"gemm"}
    assert set(speed._commands("training")) == {*contenders.BUILDERS, *speed.PEERS}
