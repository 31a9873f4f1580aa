"""Environment variables of other programs do no harm: one line at most, and the program works."""

import os
import pathlib
import subprocess
import sys
import warnings

import pytest

from tests import processes
from tff_personalization import environment, errors, homes

SAYS = "import os, sys, tff_personalization as t; "


def python(code, *, executable=sys.executable, cwd=processes.ROOT, **variables):
    """The output of a Python that imports the package with these variables and prints something."""
    settings = {"cwd": cwd, "capture_output": True, "text": True, "check": False}
    return subprocess.run([executable, "-c", SAYS + code], env={**os.environ, **variables}, **settings)


def test_variables_that_end_matplotlib_tensorflow_or_grpc_are_not_used():
    variables = {"MPLBACKEND": "module://no_such", "TF_XLA_FLAGS": "--no_such", "GRPC_POLL_STRATEGY": "no_such"}
    said = python(f"print([name for name in {list(variables)} if name in os.environ])", **variables)
    assert said.stdout == "[]\n"
    assert said.stderr.splitlines() == [
        "TF_XLA_FLAGS is set for another program: it is not used.",
        "GRPC_POLL_STRATEGY is set for another program: it is not used.",
    ]


def test_a_notebook_keeps_its_own_variables(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setenv("MPLBACKEND", "module://of_the_notebook")
    environment.settle()
    assert os.environ["MPLBACKEND"] == "module://of_the_notebook"


def test_warnings_that_are_to_be_errors_are_warnings():
    said = python("import warnings; warnings.warn('x'); print('after it')", PYTHONWARNINGS="error")
    assert said.stdout == "after it\n"
    assert said.stderr.splitlines()[0].startswith("PYTHONWARNINGS turns TensorFlow's warnings into errors")


def test_a_plot_is_drawn_whatever_the_backend_of_the_notebook_that_started_it(tmp_path):
    for backend in ("module://matplotlib_inline.backend_inline", "no such backend"):
        command = [sys.executable, "-m", "analysis.learning_curves", "docs/results/quick", f"--output={tmp_path}/x.png"]
        settings = {"cwd": processes.ROOT, "capture_output": True, "text": True, "check": False}
        completed = subprocess.run(command, env={**os.environ, "MPLBACKEND": backend}, **settings)
        assert (completed.returncode, completed.stderr) == (0, "")
        assert (tmp_path / "x.png").stat().st_size > 0


def test_a_keras_json_of_the_users_is_not_read(tmp_path):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text('{"floatx": "no such type"}')  # Keras would end with an assertion
    said = python("import keras; print(keras.backend.floatx())", HOME=str(tmp_path))
    assert (said.stdout, said.stderr) == ("float32\n", "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_nothing_and_no_file_takes_their_place(closed, tmp_path):
    code = f"{SAYS} file = open({str(tmp_path / 'file')!r}, 'w'); file.write('z'); assert file.fileno() > 2"
    code += "; print('x'); print('y', file=sys.stderr)"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=processes.ROOT, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "file").read_text() == "z"


def test_a_terminal_that_has_no_umlauts_shows_an_escape():
    said = python("print('L\\xe4ufe')", PYTHONIOENCODING="ascii")
    assert (said.returncode, said.stdout) == (0, "L\\xe4ufe\n")


def test_variables_of_jax_and_folders_without_a_root_are_not_used():
    variables = {"JAX_ENABLE_X64": "maybe", "XDG_CACHE_HOME": "cache", "XDG_CONFIG_HOME": "/tmp", "MPLCONFIGDIR": "x"}
    said = python(f"print([name for name in {list(variables)} if name in os.environ])", **variables)
    assert (said.stdout, said.stderr) == ("['XDG_CONFIG_HOME']\n", "")


def test_a_plot_does_not_import_jax():
    said = python("import matplotlib.cbook as c; print(c._is_jax_array(1), 'jax._src' in sys.modules)")
    assert (said.stdout, said.stderr) == ("False False\n", "")


def test_pythons_safe_path_still_has_the_project():
    settings = {"cwd": processes.ROOT, "capture_output": True, "text": True, "check": False}
    variables = {**os.environ, "PYTHONSAFEPATH": "1"}
    said = subprocess.run([sys.executable, "run_experiment.py", "--rounds=no"], env=variables, **settings)
    assert (said.returncode, said.stderr.count("\n")) == (1, 1)
    assert said.stderr.startswith("Error: --rounds=no")


def test_make_gives_the_path_of_a_run_as_it_is(tmp_path):
    run = f'{tmp_path}/of Smith, J.\'s "best" & `last`; runs'
    (tmp_path / "bin").mkdir()
    python_instead = tmp_path / "bin" / "python"
    python_instead.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python_instead.chmod(0o755)
    (tmp_path / "installed").touch()
    command = ["make", "--no-print-directory", "draw", f"VENV={tmp_path}", f"RUN={run}", "FLAGS=--port=0"]
    said = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, check=False)
    assert said.stdout.splitlines() == ["-m", "tff_personalization.draw", run, "--port=0"], said.stderr


def test_packages_of_another_python_are_looked_at_last_and_modules_of_the_users_own_are_found(tmp_path):
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise ImportError('of another Python')")
    (tmp_path / "mine.py").write_text("x = 'found'")
    said = python("import numpy, mine; print(mine.x)", PYTHONPATH=str(tmp_path))
    assert said.stdout == "found\n"
    assert said.stderr == f"PYTHONPATH: {tmp_path} has another numpy: the installed one is used.\n"
    (tmp_path / "numpy" / "__init__.py").rename(tmp_path / "__init__.py")
    assert python("import mine", PYTHONPATH=str(tmp_path)).stderr == ""


NOBODY = ["unshare", "-U", "--map-user=12345", "env", "-i", "PATH=/usr/bin:/bin", sys.executable, "-c"]


def test_a_user_without_a_home_gets_a_temporary_one_and_no_folder_has_the_name_of_a_tilde(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(processes.ROOT)!r})\n{SAYS}\n"
        "from tff_personalization import homes; print(homes.kept('.cache')); import keras"
    )
    said = subprocess.run([*NOBODY, code], cwd=tmp_path, capture_output=True, text=True, check=False)
    if "unshare" in said.stderr:
        pytest.skip("no user namespaces here")
    assert said.returncode == 0, said.stderr
    place = pathlib.Path(said.stdout.strip())
    assert place.parent.name.startswith("tff_personalization-")
    assert said.stderr == f"This user has no home (HOME is not set): {place.parent} is used.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_is_reported_once_and_data_is_kept_elsewhere(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    homes._kept.cache_clear()
    try:
        kept = homes.kept(".cache", "of_a_test")
        assert homes.kept(".cache", "of_a_test") == kept == environment.temporary_folder() / ".cache" / "of_a_test"
    finally:
        homes._kept.cache_clear()
    (record,) = caplog.records
    assert record.getMessage().startswith("/proc/.cache/of_a_test cannot be written (No such file or directory): ")


def test_another_users_temporary_folder_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = environment.temporary_folder()
    assert environment.temporary_folder() == first
    first.chmod(0o777)  # as a folder that others may write to
    assert environment.temporary_folder() != first


@pytest.mark.parametrize("path", ["~no_such_user_at_all", "~no_such_user_at_all/runs"])
def test_the_home_of_nobody_is_refused_and_not_made(path):
    with pytest.raises(errors.UserError, match="no home directory of that name"):
        homes.expand(path)
    assert homes.expand("~/x") == pathlib.Path(os.environ["HOME"], "x")


@pytest.mark.parametrize(
    "arguments", [["run_experiment.py"], ["-m", "analysis.compare_runs", "x"], ["-m", "tff_personalization.draw"]]
)
def test_a_program_of_another_python_names_make_run_in_one_line(arguments):
    without_packages = [sys.executable, "-S", *arguments]
    completed = subprocess.run(without_packages, cwd=processes.ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    assert completed.stderr.startswith(f"Error: {sys.executable} lacks the packages that this project needs: ")
    assert "make run" in completed.stderr
    assert completed.stderr.count("\n") == 1


def test_a_library_of_another_python_is_an_import_error():
    code = "import sys; sys.path.insert(0, '.'); import tff_personalization"
    completed = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=processes.ROOT, capture_output=True, text=True, check=False
    )
    assert completed.stderr.splitlines()[-1].startswith("ImportError: ")


def test_python_without_docstrings_is_one_line():
    completed = subprocess.run(
        [sys.executable, "-OO", "run_experiment.py"], cwd=processes.ROOT, capture_output=True, text=True, check=False
    )
    assert completed.stderr == "Error: PYTHONOPTIMIZE=2 removes docstrings that TensorFlow reads: unset it.\n"


def test_warnings_are_as_before_where_nothing_is_set():
    before = list(warnings.filters)
    environment.settle()
    assert warnings.filters == before
