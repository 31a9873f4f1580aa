"""The picture shows the figures of the tables."""

import sys

import numpy as np
import pandas as pd
import pytest

from analysis import style
from benchmarks import plot, profile_round
from tff_personalization.errors import UserError

SPEEDS = pd.DataFrame(
    {
        "task": ["training"] * 4 + ["evaluation"],
        "contender": ["raw", "ours", "stock", "ours", "ours"],
        "per_second": [300.0, 190.0, 100.0, 210.0, 7.0],
    }
)
GROWTH = pd.DataFrame(
    {
        "sweep": ["cohort", "cohort", "local_epochs", "local_epochs", "evaluation"],
        "clients": [100, 5, 20, 20, 900],
        "local_epochs": [1, 1, 1, 20, 1],
        "per_second": [1500.0, 800.0, 2000.0, 2500.0, 40.0],
        "python_mb": [870, 860, 860, 860, 860],
        "worker_mb": [1500, 400, 700, 700, 600],
    }
)
PROFILE = pd.DataFrame({"part": profile_round.PARTS, "milliseconds": 100.0, "share": 1 / len(profile_round.PARTS)})


def write(directory):
    for name, table in (("speed", SPEEDS), ("growth", GROWTH), ("profile", PROFILE)):
        table.to_csv(directory / f"{name}.csv", index=False)


def test_the_panels_show_the_tables():
    figure = plot.plot(SPEEDS, GROWTH, PROFILE)
    speeds, profile, cohort, memory, epochs = figure.axes
    assert [label.get_text() for label in speeds.get_yticklabels()] == [
        plot.LABELS[name] for name in ("ours", "stock", "raw")
    ]
    np.testing.assert_allclose([bar.get_width() for bar in speeds.patches], [1, 0.5, 1.5])
    np.testing.assert_allclose([bar.get_width() for bar in profile.patches], 100 / len(PROFILE))
    assert "0.8 s" in profile.get_title()
    lines = [np.column_stack(line.get_data()).tolist() for panel in (cohort, memory, epochs) for line in panel.lines]
    assert lines == [
        [[5, 800], [100, 1500]],
        [[5, 400], [100, 1500]],
        [[5, 860], [100, 870]],
        [[1, 2000], [20, 2500]],
    ]
    assert [label.get_text() for label in memory.get_legend().get_texts()] == ["TFF's worker", "Python"]


def test_every_contender_has_a_label():
    from benchmarks import contenders, speed

    assert set(plot.LABELS) == {*contenders.BUILDERS, *speed.PEERS}


def test_the_command_writes_the_picture(tmp_path, monkeypatch, capsys):
    write(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plot", f"--output_dir={tmp_path}"])
    assert plot.main() == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "performance.png")
    assert (tmp_path / "performance.png").read_bytes()[:4] == b"\x89PNG"


def test_a_missing_or_wrong_table_is_refused(tmp_path, monkeypatch, capsys):
    write(tmp_path)
    with pytest.raises(UserError, match="has no column part"):
        plot.read(tmp_path / "growth.csv", "profile")
    (tmp_path / "speed.csv").unlink()
    monkeypatch.setattr(sys, "argv", ["plot", f"--output_dir={tmp_path}"])
    assert plot.main() == 1
    assert "speed.csv cannot be read" in capsys.readouterr().err


def test_the_picture_is_saved_twice_with_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        style.save(plot.plot(SPEEDS, GROWTH, PROFILE), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
