"""Choices, memory and tables of the benchmarks' commands."""

import argparse
import os

import numpy as np
import pandas as pd
import psutil
import pytest

from benchmarks import recording


def test_names_are_chosen_once_each_and_an_unknown_one_is_refused(capsys):
    parser = argparse.ArgumentParser()
    assert recording.chosen(parser, "sweeps", "b,a,b", ("a", "b")) == ["b", "a"]
    with pytest.raises(SystemExit):
        recording.chosen(parser, "sweeps", "a,c", ("a", "b"))
    assert "--sweeps: 'c' is unknown; choose from a, b" in capsys.readouterr().err


def test_an_answer_is_the_first_json_object_among_other_lines():
    assert recording.answer(["a warning", "3", '{"seconds": 2}', '{"seconds": 3}']) == {"seconds": 2}
    assert recording.answer(["a warning"]) is None


def test_the_peak_of_memory_remembers_what_was_given_back():
    now = psutil.Process().memory_info().rss / 1e6
    ones = np.ones(400_000_000, np.uint8)
    held = recording.peak_mb(os.getpid())
    del ones
    assert held >= now + 300
    assert recording.peak_mb(os.getpid()) >= held - 5  # the kernel counts a little late


def test_a_table_is_written_with_cores_and_commit(tmp_path):
    recording.write(pd.DataFrame({"a": [1, 2]}), tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table.columns) == ["a", "cores", "git_commit"]
    assert list(table["a"]) == [1, 2]
    assert (table["cores"] >= 1).all()


def test_an_output_directory_that_cannot_be_made_and_no_repetition_are_refused_at_once(tmp_path, capsys):
    parser = recording.parser("Measures something.", 3, "rounds")
    assert parser.parse_args([f"--output_dir={tmp_path / 'a' / 'b'}"]).output_dir.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        parser.parse_args([f"--output_dir={tmp_path / 'file' / 'b'}"])
    assert "cannot be made" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser.parse_args(["--repetitions=0"])
    assert "--repetitions: give 1 or more" in capsys.readouterr().err
