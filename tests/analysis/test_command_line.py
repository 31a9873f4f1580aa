"""The scripts as commands: written files, exit statuses, errors on one line."""

import pathlib
import subprocess
import sys

from analysis import command_line

PROJECT = pathlib.Path(__file__).parents[2]


def _run(module: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", f"analysis.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)


def _assert_one_line_error(result: subprocess.CompletedProcess, words: str) -> None:
    assert result.returncode == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert not result.stdout


def test_a_plot_of_one_run_goes_into_its_plots_directory(make_run):
    directory = make_run()
    result = _run("learning_curves", directory)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == [str(directory / "plots" / "learning_curves.png")]
    assert (directory / "plots" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_several_runs_goes_beside_the_first(make_run):
    first, second = make_run("a"), make_run("b", seed=2)
    result = _run("personalization_epochs", first, second)
    assert result.stdout.split() == [str(first.parent / "plots" / "personalization_epochs.png")]


def test_output_names_the_file_and_its_format(make_run, tmp_path):
    path = tmp_path / "new" / "curves.svg"
    assert _run("learning_curves", make_run(), f"--output={path}").returncode == 0
    assert "<svg" in path.read_text()


def test_errors_are_one_line_and_exit_status_1(make_run, tmp_path):
    _assert_one_line_error(_run("client_scatter", tmp_path / "gone"), "no such directory")
    _assert_one_line_error(_run("compare_runs"), "no run directory given")
    jpeg = _run("learning_curves", make_run("a"), f"--output={tmp_path / 'x.jpg'}")
    _assert_one_line_error(jpeg, "does not end in .png, .pdf, .svg")
    _assert_one_line_error(_run("plot_all", make_run("b", finished=False)), "unfinished run")


def test_a_table_is_printed_or_written(make_run, tmp_path):
    directory = make_run()
    printed = _run("compare_runs", directory, "--format=markdown")
    written = _run("compare_runs", directory, "--format=markdown", "--over_seeds", f"--output={tmp_path / 't.md'}")
    assert printed.stdout.startswith("| run | method |")
    assert written.stdout.split() == [str(tmp_path / "t.md")]
    assert "over seeds" in (tmp_path / "t.md").read_text()


def test_the_analysis_imports_no_tensorflow_and_defines_no_flag_on_import():
    check = (
        "import sys; from absl import app, flags; before = set(flags.FLAGS);"
        "import analysis.plot_all, analysis.compare_runs;"
        "assert set(flags.FLAGS) == before, set(flags.FLAGS) - before;"
        "assert not {'tensorflow', 'tensorflow_federated', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], cwd=PROJECT, check=True, timeout=120)


def test_the_reference_may_be_an_absolute_path_beside_relative_runs(make_run, monkeypatch):
    make_run("a")
    reference = make_run("b", method="fed_avg")
    monkeypatch.chdir(reference.parent)
    assert [run.name for run in command_line.read_with_reference(["a", "b"], str(reference))] == ["b", "a"]
