"""Sweeps: the runs of a file, what is refused, and a whole sweep as a process."""

import collections
import math
import pathlib
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pandas as pd
import pytest

from tests import forked
from tests.sweeps.conftest import small_runs
from tff_personalization import errors
from tff_personalization.records import run_writer
from tff_personalization.sweeps import run_processes, search, sweep, sweep_file

ROOT = pathlib.Path(__file__).parents[2]


def test_a_grid_is_every_combination_for_each_of_the_runs(sweep_of):
    text = """
        [[runs]]
        method = "fed_avg"
        local_epochs = 5
        [[runs]]
        method = "reptile"
        strategies = ["fine_tune", "local_only"]
        [grid]
        seed = [1, 2]
        server_learning_rate = [0.5, 1.0]
    """
    made = sweep_of(text, "--rounds=7")
    found = [run.directory.experiment for run in made.runs]
    assert [
        (e.config.method, e.config.seed, e.optimizers["server"].learning_rate, e.values["local_epochs"]) for e in found
    ] == [
        *(("fed_avg", seed, rate, 5) for seed in (1, 2) for rate in (0.5, 1.0)),
        *(("reptile", seed, rate, 10) for seed in (1, 2) for rate in (0.5, 1.0)),
    ]
    assert {e.config.rounds for e in found} == {7}
    assert found[-1].config.strategies == ["fine_tune", "local_only"]
    assert len({run.directory.path for run in made.runs}) == 8
    assert {run.directory.path.parent for run in made.runs} == {made.directory}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_the_sweeps_of_the_project_are_sound(sweep_of, path):
    data = ["--task=shakespeare"] if path.stem.startswith("shakespeare") else ["--test_clients=67"]
    content = tomllib.loads(path.read_text())
    grid = math.prod(len(values) for values in content.get("grid", {}).values())
    assert len(sweep_of(path.read_text(), *data).runs) == grid * len(content.get("runs", [{}]))


def test_the_comparison_on_federated_emnist_is_sound(sweep_of, monkeypatch):
    """Nine points for each of 24 rows; three seeds of each row, six of the first five."""
    searched = []
    monkeypatch.setattr(
        search, "_make_trials", lambda _, __, searches: searched.extend(len(of_run.left) for of_run in searches)
    )
    folder = ROOT / "configs" / "femnist"
    made = sweep_of((folder / "comparison.toml").read_text(), f"--flagfile={folder / 'common.flags'}")
    seeds = collections.Counter(run.label for run in made.runs)
    assert [*seeds.values()] == 5 * [6] + 19 * [3]
    assert searched == 24 * [9]


def test_the_extra_rows_on_federated_emnist_have_a_run_for_each_seed(sweep_of):
    folder = ROOT / "configs" / "femnist"
    made = sweep_of((folder / "second_best.toml").read_text(), f"--flagfile={folder / 'common.flags'}")
    assert [run.directory.experiment.config.seed for run in made.runs] == 4 * [1, 2, 3]


def test_a_run_has_its_own_grid_whose_values_replace_those_of_the_grid_of_all(sweep_of):
    made = sweep_of("""
        [grid]
        seed = [1, 2]
        [[runs]]
        grid = {seed = [3], local_epochs = [2, 5]}
        [[runs]]
        batch_size = 10
    """)
    values = [run.directory.experiment.values for run in made.runs]
    found = [(each["seed"], each["local_epochs"], each["batch_size"]) for each in values]
    assert found == [(3, 2, 20), (3, 5, 20), (1, 10, 10), (2, 10, 10)]


def test_labels_are_kept_and_are_no_flags(sweep_of):
    made = sweep_of('[[runs]]\nlabel = "half"\nserver_learning_rate = 0.5\n[[runs]]\nseed = 2\n')
    assert [(run.label, dict(run.overrides)) for run in made.runs] == [
        ("half", {"server_learning_rate": 0.5}),
        ("", {"seed": 2}),
    ]


SCALES = """
    [about]
    title = "Two sizes"
    [grid]
    rounds = [500]
    local_epochs = [2, 5]
    [scale.full]
    [scale.small]
    rounds = [60]
    seed = [1, 2]
    [scale.tiny]
    [[scale.tiny.runs]]
    seed = 4
"""


def test_a_scale_changes_the_grid_adds_to_it_or_has_runs_of_its_own(sweep_of):
    def found(scale):
        values = [run.directory.experiment.values for run in sweep_of(SCALES, f"--scale={scale}").runs]
        return [(each["rounds"], each["local_epochs"], each["seed"]) for each in values]

    assert found("full") == [(500, 2, 1), (500, 5, 1)]
    assert found("small") == [(60, 2, 1), (60, 2, 2), (60, 5, 1), (60, 5, 2)]
    assert found("tiny") == [(500, 2, 4), (500, 5, 4)]


BAD_SWEEPS = {
    "not TOML": ("[grid\n", [], ["sweep.toml", "line 1"]),
    "empty": ("", [], ["sweep.toml", "[grid]"]),
    "a flag outside": ("seed = [1]\n", [], ["sweep.toml", "seed", "[grid]"]),
    "no list": ("[grid]\nseed = 1\n", [], ["seed in [grid]", "list"]),
    "no flag": ("[grid]\nseeed = [1]\n", [], ["seeed", "no such flag", "Did you mean seed?"]),
    "out of range": ("[grid]\nbatch_size = [20, 0]\n", [], ["run 2", "--batch_size=0", "1 or more"]),
    "unread": ("[grid]\nmethod = ['fed_avg', 'reptile']\nlocal_epochs = [2]\n", [], ["run 2", "--local_epochs"]),
    "twice the same": ("[grid]\nseed = [3, 4, 3]\n", [], ["runs 1 and 3", "same"]),
    "files of one name": ("[grid]\nclient_data = ['a/x.npz', 'b/x.npz']\n", [], ["runs 1 and 2", "a/x.npz", "names"]),
    "in both": ("[[runs]]\nseed = 1\n[grid]\nseed = [2]\n", [], ["seed", "keep one"]),
    "on the command line": ("[grid]\nseed = [1]\n", ["--seed=2"], ["--seed", "command line"]),
    "of the whole": ("[grid]\noutput_dir = ['a']\n", [], ["output_dir", "command line"]),
    "a name for all": ("[grid]\nseed = [1]\n", ["--run_name=a"], ["--run_name", "names its runs itself"]),
    "a name for each": ("[grid]\nrun_name = ['a']\n", [], ["run_name", "names its runs itself"]),
    "no number": ("[grid]\nseed = [1, 'x']\n", [], ["run 2 (--seed=x)", "--seed=x: give a whole number"]),
    "brackets": (5000 * "[", [], ["not TOML"]),
    "no scale given": (SCALES, [], ["--scale", "full, small, tiny"]),
    "no such scale": (SCALES, ["--scale=huge"], ["--scale=huge", "full, small, tiny"]),
    "no scales": ("[grid]\nseed = [1]\n", ["--scale=small"], ["--scale=small", "the file has no scales"]),
    "scale and runs": ("[[runs]]\nseed = 1\n[scale.a]\nseed = [2]\n", ["--scale=a"], ["seed", "[scale.a]", "keep one"]),
    "scale without a list": (
        "[grid]\nseed = [1]\n[scale.a]\nrounds = 2\n",
        ["--scale=a"],
        ["rounds in [scale.a]", "list"],
    ),
    "a run's grid and its flag": (
        "[[runs]]\nseed = 1\ngrid = {seed = [2]}\n",
        [],
        ["seed", "[[runs]] number 1", "keep one"],
    ),
    "a run's grid without a list": (
        "[[runs]]\ngrid = {seed = 2}\n",
        [],
        ["seed in the grid of [[runs]] number 1", "list"],
    ),
    "a run's grid that is none": ("[[runs]]\ngrid = 2\n", [], ["grid of [[runs]] number 1", "grid = {FLAG = [1, 2]}"]),
    "a label that is none": ("[[runs]]\nlabel = 3\n", [], ["label", "words"]),
    "no table of scales": ("[grid]\nseed = [1]\n[scale]\nsmall = 3\n", [], ["[scale.NAME]"]),
}


@pytest.mark.parametrize(("text", "arguments", "hints"), BAD_SWEEPS.values(), ids=BAD_SWEEPS)
def test_a_sweep_that_is_wrong_is_refused_in_one_line_before_anything_runs(sweep_of, tmp_path, text, arguments, hints):
    with pytest.raises(errors.UserError) as refusal:
        sweep_of(text, *arguments)
    assert "\n" not in str(refusal.value)
    assert all(hint in str(refusal.value) for hint in hints), refusal.value
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (
            "client_data = ['handwriting', 'no/such.npz']",
            "run 2 (--client_data=no/such.npz): --client_data=no/such.npz",
        ),
        ("test_client_ids = ['no/such.txt']", "run 1 (--test_client_ids=no/such.txt): --test_client_ids=no/such.txt"),
    ],
)
def test_data_of_any_run_that_is_not_there_is_refused_before_the_first_starts(sweep_of, tmp_path, places, said):
    with pytest.raises(errors.UserError) as refusal:
        sweep_of(f"[grid]\n{places}\n").run()
    assert said in str(refusal.value)
    assert not (tmp_path / "runs").exists()


def test_a_sweep_that_a_windows_editor_wrote_is_read(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_bytes("[grid]\r\nseed = [1, 2]\r\n".encode("utf-8-sig"))
    assert [dict(point.overrides) for point in sweep_file.read(path).points()] == [{"seed": 1}, {"seed": 2}]


def test_a_stopped_sweep_resumes_lists_failed_runs_and_writes_a_table(tmp_path, by_writer_archive):
    missing = tmp_path / "later.npz"  # of no archive yet
    np.savez(missing, x=1)
    (tmp_path / "two.toml").write_text(
        f"[[runs]]\nclient_data = '{by_writer_archive}'\nrounds = 30\n[[runs]]\nclient_data = '{missing}'\nrounds = 2\n"
    )
    command = [sys.executable, "run_experiment.py", *small_runs(by_writer_archive)[1:]]
    command += [f"--sweep={tmp_path / 'two.toml'}", f"--output_dir={tmp_path}"]
    process = forked.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while not any(len(path.read_text().splitlines()) > 3 for path in tmp_path.glob("two/*/metrics.csv")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert "resumes from here" in output
    assert list(tmp_path.glob("two/*/checkpoints/round_*"))  # the current run has saved
    assert not list(tmp_path.glob("two/*/summary.json"))

    again = forked.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "[2/2]" in again.stderr
    assert f"Failed: --client_data={missing}" in again.stdout
    table = pd.read_csv(tmp_path / "two" / "sweep.csv")
    assert table.status.tolist() == ["finished", "failed"]
    assert str(missing) in table.error[1]
    clients = pd.read_csv(pathlib.Path(table.run_directory[0]) / "clients.csv")
    main = clients[(clients.strategy == "fine_tune") & (clients.epoch == 1)]
    assert table.personalized_accuracy_mean[0] == pytest.approx(main.accuracy.mean())
    metrics = pd.read_csv(pathlib.Path(table.run_directory[0]) / "metrics.csv")
    assert metrics["round"].tolist() == list(range(1, 31))

    missing.write_bytes(pathlib.Path(by_writer_archive).read_bytes())
    last = forked.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert "finished already" in last.stderr
    assert pd.read_csv(tmp_path / "two" / "sweep.csv").status.tolist() == ["finished", "finished"]


def test_a_fault_of_the_sweep_itself_leaves_no_run_behind(sweep_of, monkeypatch):
    made = sweep_of("[grid]\nseed = [1, 2]\n", "--sweep_runs_at_once=2")
    monkeypatch.setattr(made, "_command", lambda run: [sys.executable, "-c", "import time; time.sleep(60)"])
    started, start = [], run_processes.RunProcesses.start

    def begin_one(self, *arguments):
        if started:
            raise OSError("no more processes")
        start(self, *arguments)
        started.extend(process for _, process, _ in self._running.values())

    monkeypatch.setattr(run_processes.RunProcesses, "start", begin_one)
    with pytest.raises(OSError, match="no more processes"):
        made.start()
    assert [process.poll() for process in started] == [-signal.SIGTERM]


def test_a_run_that_another_process_is_making_is_no_failure(sweep_of, tmp_path, monkeypatch, capsys):
    program = tmp_path / "program.py"
    program.write_text(f"import sys\nsys.exit('Error: runs/x {run_writer.IN_USE} (12): wait for it.')\n")
    monkeypatch.setattr(sweep, "_PROGRAM", program)
    made = sweep_of("[grid]\nseed = [1, 2]\n", "--sweep_stop_on_failure")
    assert not made.run()
    assert [run.status for run in made.runs] == ["in progress", "in progress"]
    said = capsys.readouterr().out
    assert f"In progress: --seed=2: another process is making it, in {made.runs[1].directory.path}" in said
    assert "Failed" not in said


def test_the_state_of_a_run_is_that_of_its_directory_at_the_end(sweep_of, monkeypatch):
    made = sweep_of("[grid]\nseed = [1, 2, 3]\n")
    (theirs := made.runs[0].directory.path / "summary.json").parent.mkdir(parents=True)
    fails = f"import pathlib, sys; pathlib.Path(sys.argv[1]).touch(); sys.exit('{run_writer.IN_USE}')"
    # Another process makes the first two and finishes one. The third has another directory than when the sweep began.
    commands = iter([["-c", fails, str(theirs.with_name("a"))], ["-c", fails, str(theirs)], ["-c", "pass"]])
    monkeypatch.setattr(made, "_command", lambda run: [sys.executable, *next(commands)])
    made.start()
    assert [run.status for run in made.runs] == ["finished", "in progress", "failed"]
    assert made.runs[0].error == ""
    assert "changed after the sweep began: run the same command again" in made.runs[2].error


def test_a_run_waits_for_one_under_way_that_will_have_its_rounds(sweep_of):
    text = """
        [[runs]]
        method = "fed_avg"
        [[runs]]
        method = "personalized_fed_avg"
        stage_2_round = 5
        [[runs]]
        method = "reptile"
        [[runs]]
        method = "fed_avg"
        strategies = ["fine_tune", "knn_per"]
    """
    made = sweep_of(text, "--rounds=8", "--sweep_runs_at_once=2", "--rounds_per_model=4")
    assert made._next([1, 2, 3, 4], []) == 1
    assert made._next([2, 3, 4], [1]) == 3
    assert made._next([2, 4], [1, 3]) is None
    assert made._next([2, 4], [3]) == 2
    made = sweep_of(text, "--rounds=8", "--sweep_runs_at_once=2")
    assert made._next([2, 4], [1, 3]) == 2  # the model after round 4 will not be kept
