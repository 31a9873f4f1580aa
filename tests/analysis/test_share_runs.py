"""What is published of a run: its records, readable as before, without paths of the machine."""

import json

import pytest

from analysis import compare_methods, share_runs
from analysis import runs as runs_lib
from tff_personalization.errors import UserError


def test_what_is_shared_gives_the_same_tables_and_has_no_paths(make_run, tmp_path):
    directory = make_run("mine", flags={"client_data": "/home/me/hands.npz", "output_dir": "/home/me/runs/"})
    (directory / "checkpoints").mkdir()
    shared = share_runs.share(runs_lib.read(directory), tmp_path / "shared")
    before, after = (compare_methods.compare(runs_lib.read_all([run])) for run in (directory, shared))
    assert before.equals(after)
    config = json.loads((shared / "config.json").read_text())
    assert (config["flags"]["client_data"], config["flags"]["output_dir"]) == ("hands.npz", "runs")
    assert "/home" not in "".join(path.read_text() for path in shared.iterdir())
    assert not (shared / "checkpoints").exists()
    share_runs.share(runs_lib.read(directory), tmp_path / "shared")  # again changes nothing


def test_another_run_is_not_overwritten(make_run, tmp_path):
    share_runs.share(runs_lib.read(make_run("mine", seed=1)), tmp_path / "shared")
    other = make_run("others/mine", seed=2)
    with pytest.raises(UserError, match="holds another run"):
        share_runs.share(runs_lib.read(other), tmp_path / "shared")


def test_an_unfinished_run_is_refused(make_run, tmp_path):
    with pytest.raises(UserError, match="unfinished"):
        share_runs.share(runs_lib.read(make_run(finished=False)), tmp_path / "shared")
    assert not (tmp_path / "shared").exists()
