"""Opening a finished run: its contents, the cost of opening, and refusals in one line."""

import doctest
import json
import os
import shutil
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from analysis import share_runs
from tests.tasks.sources import small_files
from tff_personalization import methods, plugins
from tff_personalization.records import finished_run as finished_run_lib
from tff_personalization.records import run_records
from tff_personalization.records.finished_run import FinishedRun

PLUGIN = """
from tff_personalization import methods
methods.register("mine_NAME", methods.get("fed_avg"))
"""


@pytest.fixture(scope="module")
def linear_run(finished_run):
    return finished_run(model="linear")


@pytest.fixture
def _plugins_of_this_test_only():
    with mock.patch.dict(methods.METHODS), mock.patch.dict(plugins._loaded):
        yield


def _refused(directory, use=lambda run: None, client_data=None, *, names):
    small_files.refusal(lambda: use(FinishedRun.open(directory, client_data)), names=names)


def test_the_docstring_is_a_toy_that_runs(run, tmp_path, monkeypatch):
    directory = run(local_epochs=1, personalization_epochs=1)
    (tmp_path / "runs").mkdir()
    shutil.move(directory, tmp_path / "runs" / "quick")
    monkeypatch.chdir(tmp_path)
    (toy,) = doctest.DocTestFinder(recurse=False).find(FinishedRun, globs={"FinishedRun": FinishedRun})
    assert doctest.DocTestRunner().run(toy) == doctest.TestResults(failed=0, attempted=len(toy.examples))


def test_a_run_that_cannot_be_written_computes_without_a_log(linear_run, tmp_path):
    log = shutil.copytree(linear_run, tmp_path / "run") / "worker.log"
    log.unlink()
    log.mkdir()  # which cannot be opened for writing, even by root
    run = FinishedRun.open(log.parent)
    with mock.patch.object(finished_run_lib.runtime, "execution_context") as context, run.computing():
        assert context.call_args.args[1].name == os.devnull


def test_the_round_is_the_last_the_best_on_validation_clients_or_any_that_is_kept(linear_run):
    opened = FinishedRun.open(linear_run)
    assert [opened.round_number(which) for which in ("last", "best", "2", 4)] == [4, 2, 2, 4]
    assert opened.kept_rounds == [2, 4]
    for which, number in (("last", 4), ("best", 2)):
        with np.load(linear_run / "models" / f"round_{number}.npz") as kept:
            np.testing.assert_array_equal(opened.global_weights(which).model[0], kept["arr_0"])


def test_records_are_read_without_settings_model_or_data(linear_run, monkeypatch):
    opened = FinishedRun.open(linear_run)
    for module, name in ((finished_run_lib.config_lib, "from_flags"), (finished_run_lib.federated_data, "load")):
        monkeypatch.setattr(module, name, None)
    assert opened.summary["rounds"] == 4
    assert opened.name == "run"


def test_the_reader_of_records_imports_no_tensorflow(linear_run):
    check = (
        "import sys; from tff_personalization.records import run_records;"
        "assert run_records.read(sys.argv[1]).finished;"
        "assert not [name for name in sys.modules if name in ('tensorflow', 'tensorflow_federated')]"
    )
    subprocess.run([sys.executable, "-c", check, linear_run], check=True, timeout=60)


def test_a_run_that_is_not_finished_is_refused(tmp_path, linear_run):
    _refused(tmp_path / "none", names=[tmp_path / "none", "no such directory"])
    _refused(tmp_path, names=[tmp_path, "not a run directory"])
    unfinished = shutil.copytree(linear_run, tmp_path / "unfinished")
    (unfinished / "summary.json").unlink()
    _refused(unfinished, names=[unfinished, "unfinished"])


def test_a_run_in_a_zip_file_is_refused_since_its_models_are_not_in_it(tmp_path, finished_run):
    directory = finished_run(model="linear", evaluation_release="aggregates")
    shared = share_runs.write(share_runs.of_run(FinishedRun.open(directory)), tmp_path / "shared.zip")
    _refused(shared / directory.name, names=[shared / directory.name, "a zip file has no models"])


def test_a_damaged_config_is_refused(tmp_path, linear_run):
    damaged = shutil.copytree(linear_run, tmp_path / "damaged")
    path = damaged / "config.json"
    whole = json.loads(path.read_text())
    path.write_text(path.read_text()[:100])
    _refused(damaged, names=[path, "not valid JSON"])
    for given in ({"no_flag_of_ours": 1}, {"rounds": -3}, {"method": "none"}, ["rounds"], None):
        path.write_text(json.dumps({**whole, "given": given}))
        _refused(damaged, lambda run: run.experiment, names=[path])


def test_a_round_that_is_not_kept_is_refused(tmp_path, linear_run):
    def weights(which):
        return lambda run: run.global_weights(which)

    _refused(linear_run, weights(3), names=[linear_run, "round 3", "2, 4", "--rounds_per_model"])
    _refused(linear_run, weights("first"), names=["--round=first", "last, best"])
    without = shutil.copytree(linear_run, tmp_path / "without")
    summary = json.loads((without / "summary.json").read_text())
    (without / "summary.json").write_text(json.dumps({**summary, "validation_round": None}))
    _refused(without, weights("best"), names=[without, "--validation_clients"])
    moved = FinishedRun.open(without)
    without.rename(tmp_path / "moved")
    small_files.refusal(lambda: weights("last")(moved), names=[without, "no such directory any more"])


def test_a_damaged_model_is_refused(tmp_path, linear_run):
    damaged = shutil.copytree(linear_run, tmp_path / "damaged")
    path = damaged / "models" / "round_4.npz"
    path.write_bytes(path.read_bytes()[:1000])
    _refused(damaged, lambda run: run.global_weights(), names=[path, "damaged"])
    np.savez(path, np.zeros((3, 4), np.float32), np.zeros(4, np.float32))
    _refused(damaged, lambda run: run.global_weights(), names=[path, "--model=linear"])


def test_data_is_that_of_the_run_wherever_it_is_now(tmp_path, linear_run, by_writer_archive):
    moved = shutil.copy(by_writer_archive, tmp_path / "moved.npz")
    assert FinishedRun.open(linear_run, str(moved)).data.split.counts()["test"] == 4
    with np.load(by_writer_archive) as archive:
        np.savez(moved, **{**archive, "labels": archive["labels"][::-1]})
    _refused(linear_run, lambda run: run.data, str(moved), names=[moved, linear_run, "SHA-256"])
    moved.unlink()
    _refused(linear_run, lambda run: run.data, str(moved), names=[moved])


def test_a_path_as_it_was_typed_is_called_so_where_it_leads_nowhere(tmp_path, linear_run):
    directory = shutil.copytree(linear_run, tmp_path / "run")
    config = json.loads((directory / "config.json").read_text())
    config["given"] |= {"client_data": "data/mine.npz"}
    (directory / "config.json").write_text(json.dumps(config))
    said = "is a path from the folder of the run's command: start there"
    _refused(directory, lambda run: run.data, names=[f"data/mine.npz {said}"])
    config["given"] |= {"plugin": ["my_plugins/gone.py"]}
    (directory / "config.json").write_text(json.dumps(config))
    _refused(directory, lambda run: run.experiment, names=[f"my_plugins/gone.py {said}"])


@pytest.mark.usefixtures("_plugins_of_this_test_only")
def test_a_runs_plugins_are_imported_and_refused_where_they_are_not_the_same(tmp_path, linear_run):
    name = f"plugin_{tmp_path.name}"
    plugin = tmp_path / f"{name}.py"
    plugin.write_text(PLUGIN.replace("NAME", name))
    directory = shutil.copytree(linear_run, tmp_path / "with_plugin")
    config = json.loads((directory / "config.json").read_text())
    config["given"] |= {"plugin": [str(plugin)], "method": f"mine_{name}"}
    config["flags"]["plugin_sources"] = {name: plugins.sha256([plugin])}
    (directory / "config.json").write_text(json.dumps(config))
    for _ in range(2):
        assert FinishedRun.open(directory).experiment.config.method == f"mine_{name}"
    config["flags"]["plugin_sources"] = {name: "0" * 64}
    (directory / "config.json").write_text(json.dumps(config))
    _refused(directory, lambda run: run.experiment, names=[directory, name, "has changed", "SHA-256"])
    config["given"]["plugin"] = [str(tmp_path / "gone.py")]
    (directory / "config.json").write_text(json.dumps(config))
    _refused(directory, lambda run: run.experiment, names=[directory, "gone.py", "no such file"])


@pytest.mark.usefixtures("_plugins_of_this_test_only")
def test_a_plugins_own_flags_come_from_the_record_and_not_from_this_command(tmp_path, linear_run):
    source = """
import dataclasses
from tff_personalization import methods
from tff_personalization.algorithms import fed_avg
from tff_personalization.settings import Setting
class Mine(fed_avg.Settings):
    my_share = Setting(0.5, "A share.")
methods.register("mine_NAME", dataclasses.replace(fed_avg.METHOD, settings=Mine))
"""
    name = f"plugin_{tmp_path.name}"
    plugin = tmp_path / f"{name}.py"
    plugin.write_text(source.replace("NAME", name))
    directory = shutil.copytree(linear_run, tmp_path / "with_plugin")
    config = json.loads((directory / "config.json").read_text())
    config["given"] |= {"plugin": [str(plugin)], "method": f"mine_{name}", "my_share": 0.25}
    config["flags"]["plugin_sources"] = {name: plugins.sha256([plugin])}
    (directory / "config.json").write_text(json.dumps(config))
    assert FinishedRun.open(directory).experiment.values["my_share"] == 0.25


def test_a_finished_run_is_one_for_the_analysis(linear_run):
    assert isinstance(FinishedRun.open(linear_run), run_records.Run)
