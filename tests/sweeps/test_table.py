"""The table of a sweep: what it says, and that it comes whatever happens to the files."""

import dataclasses
import resource

import pandas as pd
import pytest

from tff_personalization import metrics
from tff_personalization.tasks import registry


def test_labels_are_in_the_table(sweep_of, capsys):
    made = sweep_of('[[runs]]\nlabel = "half"\nserver_learning_rate = 0.5\n[[runs]]\nseed = 2\n')
    made.directory.mkdir(parents=True)
    made._report()
    table = pd.read_csv(made.directory / "sweep.csv", keep_default_na=False)
    assert table["label"].tolist() == ["half", ""]
    assert table.columns[0] == "label"
    assert "half" in capsys.readouterr().out


def test_a_table_that_cannot_be_written_is_printed_and_leaves_the_earlier_one(sweep_of, capsys):
    made = sweep_of(f"[grid]\nseed = {list(range(20))}\n")
    made.directory.mkdir(parents=True)
    table = made.directory / "sweep.csv"
    table.write_text("earlier")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            made._report()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert table.read_text() == "earlier"
    assert "not run" in capsys.readouterr().out


def test_a_finished_run_with_a_damaged_record_has_failed_and_the_table_is_written(sweep_of, capsys):
    made = sweep_of("[grid]\nseed = [1, 2]\n")
    (path := made.runs[0].directory.path).mkdir(parents=True)
    (path / "config.json").write_text("[]")
    made.runs[0].status = "finished"
    made._report()
    assert pd.read_csv(made.directory / "sweep.csv")["status"].tolist() == ["failed", "not run"]
    assert f"Failed: --seed=1: {path / 'config.json'}: no " in capsys.readouterr().out


def test_the_metric_of_each_task_is_named_below_the_table(sweep_of, capsys, monkeypatch):
    error = metrics.Metric("absolute error", higher_is_better=False, largest=2.0)
    regression = registry.TASKS["emnist10"].predicts.judged_by(error, lambda logits, labels: 0)
    judged = dataclasses.replace(registry.TASKS["emnist10"], predicts=regression)
    monkeypatch.setitem(registry.TASKS, "emnist10", judged)
    made = sweep_of('[[runs]]\ntask = "emnist10"\n[[runs]]\ntask = "emnist62"\n')
    made.directory.mkdir(parents=True)
    made._report()
    assert "which the columns all call accuracy: absolute error, accuracy." in capsys.readouterr().out
    made.runs.pop()
    made._report()
    said = capsys.readouterr().out
    assert "Absolute error: means over" in said
    assert "ccurac" not in said
