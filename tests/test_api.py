"""The program from Python: the command's settings, files and errors, and no traces in the process."""

import asyncio
import dataclasses
import doctest
import json
import shutil
import signal
import sys
import threading
from unittest import mock

import pandas as pd
import pytest
import tensorflow_federated as tff
from absl import flags

import tff_personalization as tp
from tests import forked, processes, shared_graphs
from tff_personalization import api, errors
from tff_personalization.experiment import config
from tff_personalization.personalization import strategies
from tff_personalization.programs import rounds
from tff_personalization.settings import Group, Setting

NOT_SAME = {"git_commit", "starts", "times"}  # different in each start, or times


@pytest.fixture(scope="module")
def settings(by_writer_archive):
    return {
        "client_data": by_writer_archive,
        "model": "linear",
        "rounds": 3,
        "clients_per_round": 3,
        "test_clients": 4,
        "validation_clients": 2,
        "rounds_per_evaluation": 2,
        "rounds_per_model": 1,
        "personalization_epochs": 2,
        "strategies": ["fine_tune", "fine_tune_head"],
        "output_dir": "runs",
        "run_name": "same",
        "plots": False,
    }


@pytest.fixture
def _shared_graphs(worker):
    with shared_graphs.shared(worker):
        yield


@pytest.fixture(scope="module")
def made(settings, worker, tmp_path_factory):
    """The run from Python, made in an event loop, as a notebook's cell is."""

    async def cell():
        return tp.run(**settings)

    directory = tmp_path_factory.mktemp("python")
    with pytest.MonkeyPatch.context() as patch, shared_graphs.shared(worker):
        patch.chdir(directory)
        run = asyncio.run(cell())
    return run, directory / "runs" / "same"


def _json(path):
    return {name: value for name, value in json.loads(path.read_text()).items() if name not in NOT_SAME}


def test_the_same_run_from_flags_leaves_the_same_files(settings, made, tmp_path):
    _, directory = made
    arguments = [config.argument(name, value) for name, value in settings.items()]
    program = [sys.executable, str(processes.ROOT / "run_experiment.py")]
    forked.run([*program, *arguments], cwd=tmp_path, check=True, capture_output=True)
    other = tmp_path / "runs" / "same"
    # Not those with the times of rounds in them, which TensorFlow writes.
    ours, theirs = (
        {
            path.relative_to(where)
            for path in where.rglob("*")
            if path.is_file() and not {"tensorboard", "checkpoints"} & set(path.parts)
        }
        for where in (directory, other)
    )
    assert ours == theirs
    compared = sorted(path for path in ours if path.name not in ("lock", "worker.log"))
    assert len(compared) > 10
    for path in compared:
        if path.suffix == ".json":
            assert _json(directory / path) == _json(other / path), path
        else:
            assert (directory / path).read_bytes() == (other / path).read_bytes(), path


def test_the_result_is_the_finished_run_and_a_second_call_opens_it(settings, made, monkeypatch):
    run, directory = made
    monkeypatch.chdir(directory.parents[1])
    with mock.patch.object(rounds, "run", side_effect=AssertionError("made again")):
        again = tp.run(**settings)
    pd.testing.assert_frame_equal(again.clients, run.clients)
    assert {"client", "strategy", "epoch", "accuracy"} <= set(run.clients.columns)
    best = again.round_number("best")
    kernel, _ = again.keras_model("best").get_weights()
    assert (kernel == again.global_weights(best).model[0]).all()


def test_judging_again_gives_what_the_run_recorded_and_other_strategies_too(made, monkeypatch):
    run, directory = made
    monkeypatch.chdir(directory.parents[1])
    recorded, files = run.clients, sorted(directory.rglob("*"))
    found = tp.evaluate(run, strategies=["fine_tune", "fine_tune_biases"])
    for name in ("accuracy", "loss", "correct"):
        ours, theirs = (table[table["strategy"] == "fine_tune"][name].tolist() for table in (found, recorded))
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert found["strategy"].unique().tolist() == ["fine_tune", "fine_tune_biases"]
    assert sorted(directory.rglob("*")) == files
    with pytest.raises(errors.UserError, match="local_epochs=7 is a setting of training"):
        tp.evaluate(run, local_epochs=7)


def test_flags_of_the_strategies_that_are_left_out_are_left_out_too(settings, made, tmp_path):
    run, _ = made
    path = tmp_path / "config.json"
    given = {**run.config["given"], "strategies": ["fine_tune", "ditto"], "ditto_lambda": 0.5}
    path.write_text(json.dumps({**run.config, "given": given}))
    shutil.copy(run.directory / "summary.json", tmp_path)
    shutil.copytree(run.directory / "models", tmp_path / "models")
    opened = tp.open_run(tmp_path, settings["client_data"])
    assert opened.experiment.values["ditto_lambda"] == 0.5
    assert tp.evaluate(opened, strategies="knn_per")["strategy"].unique().tolist() == ["knn_per"]
    with pytest.raises(errors.UserError, match="--ditto_lambda has no effect"):
        tp.evaluate(opened, strategies="knn_per", ditto_lambda=0.5)


def test_the_own_settings_of_a_strategy_may_differ_from_those_of_the_run(made, monkeypatch):
    run, directory = made
    monkeypatch.chdir(directory.parents[1])
    own = type("Own", (Group,), {"share_of_a_test": Setting(0.5, "A setting of a plugin.", least=0)})
    strategy = dataclasses.replace(strategies.STRATEGIES["fine_tune_biases"], settings=own)
    monkeypatch.setitem(strategies.STRATEGIES, "of_a_test", strategy)
    found = tp.evaluate(run, strategies=["of_a_test"], share_of_a_test=0.25)
    assert found["strategy"].unique().tolist() == ["of_a_test"]


def test_a_comparison_is_a_table_and_a_picture(made):
    run, _ = made
    comparison = tp.compare([run])
    assert comparison.table["strategy"].tolist() == ["fine_tune", "fine_tune_head"]
    assert comparison.plot().axes
    assert "fine_tune_head" in comparison._repr_html_()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"rounds": 0.5}, "rounds"),
        ({"batch_size": 0}, "--batch_size=0: give 1 or more"),
        ({"mothed": "fed_avg"}, "--mothed: there is no such flag .* Did you mean --method"),
        ({"sweep": "rates.toml"}, "sweep is for many runs: make them with the command"),
        ({"method": "no_such"}, "no_such"),
        ({"clusters": 3}, "no effect with --method=fed_avg"),
        ({"plugin": "no/such.py"}, "no such file"),
    ],
)
def test_what_a_flag_would_be_refused_for_is_an_exception_with_one_line(settings, wrong, hint):
    with pytest.raises(errors.UserError, match=hint) as refusal:
        tp.run(**settings | wrong)
    assert "\n" not in str(refusal.value)


def test_a_comparison_without_a_list_of_runs_is_refused(made):
    for wrong in ([], made[0], str(made[1]), made[1]):
        with pytest.raises(errors.UserError, match="give a list of runs"):
            tp.compare(wrong)


def test_nothing_global_is_left_behind(settings, made, monkeypatch):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    context = tff.framework.get_context_stack().current
    values = {name: flags.FLAGS[name].present for name in flags.FLAGS}
    monkeypatch.chdir(made[1].parents[1])
    tp.evaluate(made[0], personalization_epochs=0)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert tff.framework.get_context_stack().current is context
    assert {name: flags.FLAGS[name].present for name in flags.FLAGS} == values


@pytest.mark.usefixtures("_shared_graphs")
def test_ctrl_c_is_a_keyboard_interrupt_and_the_same_call_resumes(settings, made, tmp_path, monkeypatch):
    _, directory = made
    monkeypatch.chdir(tmp_path)
    train = rounds.train

    def interrupted(program, state):
        if state.round_number == 2:
            signal.raise_signal(signal.SIGINT)
        return train(program, state)

    with mock.patch.object(rounds, "train", interrupted), pytest.raises(KeyboardInterrupt):
        tp.run(**settings)
    resumed = tp.run(**settings)
    for name in ("clients.csv", "metrics.csv", "models/round_3.npz"):
        assert (resumed.directory / name).read_bytes() == (directory / name).read_bytes()


def test_a_call_from_another_thread_is_refused_and_names_the_main_one(settings):
    raised = []

    def call():
        try:
            tp.run(**settings)
        except errors.UserError as error:
            raised.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "main thread" in raised[0]


@pytest.mark.usefixtures("_shared_graphs")
def test_the_docstrings_are_toys_that_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for function in (api.run, api.evaluate):
        (toy,) = finder.find(function, globs={"run": api.run, "evaluate": api.evaluate})
        assert runner.run(toy) == doctest.TestResults(failed=0, attempted=len(toy.examples))
