"""The command: plain TensorFlow loads its output; and what it refuses."""

import dataclasses
import errno
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import forked
from tests.tasks.sources import small_files
from tff_personalization.export import __main__ as command
from tff_personalization.export import global_model
from tff_personalization.records.finished_run import FinishedRun
from tff_personalization.tasks import registry

# Run by a Python that does not see the project.
ALONE = """
import importlib.util, json, sys
assert importlib.util.find_spec("tff_personalization") is None
import numpy as np, tensorflow as tf

with np.load(sys.argv[1]) as arrays:
    inputs = dict(arrays)
found = {}
for name, paths in json.loads(sys.argv[2]).items():
    x = inputs[name]
    keras = tf.keras.models.load_model(paths["keras"])
    found[f"{name} keras"] = keras(x)
    if "saved_model" in paths:
        saved = tf.saved_model.load(paths["saved_model"]).signatures["serving_default"](x=tf.constant(x))
        found |= {f"{name} saved_model": saved["logits"], f"{name} probabilities": saved["probabilities"]}
    if "tflite" in paths:
        found[f"{name} keras again"] = tf.keras.models.load_model(paths["saved_model"])(x)
        interpreter = tf.lite.Interpreter(paths["tflite"])
        found[f"{name} tflite"] = interpreter.get_signature_runner("infer")(x=x)["logits"]
        said = json.loads(interpreter.get_signature_runner("metadata")()["json"].item())
        assert said == json.load(open(paths["tflite"] + ".json")), said
np.savez(sys.argv[3], **{name: np.asarray(value) for name, value in found.items()})
"""


@pytest.fixture(scope="module")
def text_run(finished_run):
    return finished_run(client_data=None, task="shakespeare", test_clients=2)


def test_files_are_loaded_without_the_project_and_say_the_same(tmp_path, cnn_run, linear_run, text_run, examples):
    text = np.random.default_rng(0).integers(0, 90, (3, 80)).astype(np.uint8)
    inputs = {"cnn": examples[0], "linear": examples[0], "text": text}
    runs = {"cnn": cnn_run, "linear": linear_run, "text": text_run}
    forms = {"cnn": ["keras", "saved_model"], "linear": list(command.FORMATS), "text": ["keras"]}
    paths = {
        name: {form: str(command.export(run, form, path=tmp_path / name / f"{form}.keras")) for form in forms[name]}
        for name, run in runs.items()
    }
    np.savez(tmp_path / "inputs.npz", **inputs)
    arguments = [str(tmp_path / "inputs.npz"), json.dumps(paths), str(tmp_path / "found.npz")]
    alone = [sys.executable, "-I", "-c", ALONE, *arguments]
    result = subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    with np.load(tmp_path / "found.npz") as found:
        for name, run in runs.items():
            read = global_model.read(FinishedRun.open(run))
            expected = read.run.model.logits(tuple(map(tf.constant, read.weights)), inputs[name], None)
            for form in (*forms[name], *(["keras again"] if name == "linear" else [])):
                tolerance = 1e-5 if form == "tflite" else 1e-6  # other kernels
                np.testing.assert_allclose(found[f"{name} {form}"], expected, atol=tolerance, err_msg=f"{name} {form}")
            if "saved_model" in forms[name]:
                np.testing.assert_allclose(found[f"{name} probabilities"], tf.nn.softmax(expected), atol=1e-6)


def test_the_description_says_what_a_network_that_ends_with_softmax_gives(tmp_path, finished_run, monkeypatch):
    def ends_with_softmax(num_classes, rng):
        layers = tf.keras.layers
        return tf.keras.Sequential([tf.keras.Input([28, 28]), layers.Flatten(), layers.Dense(num_classes, "softmax")])

    task = registry.TASKS["emnist62"]
    with_one_more = dataclasses.replace(task, models={**task.models, "ends": ends_with_softmax})
    monkeypatch.setitem(registry.TASKS, "emnist62", with_one_more)
    monkeypatch.setitem(registry.MODELS, "ends", None)
    run = finished_run(model="ends")
    said = {form: command.export(run, form, path=tmp_path / f"{form}.keras") for form in command.FORMATS}
    said = {form: json.loads((tmp_path / f"{path.name}.json").read_text())["output"] for form, path in said.items()}
    assert said["keras"] == said["saved_model"] == "probabilities by softmax, float32, one for each of `classes`"
    assert said["tflite"].startswith("logits, float32")


def test_what_stands_there_is_replaced_by_a_whole_file_and_nothing_else_is_left(tmp_path, linear_run):
    for form, name in (("keras", "a.keras"), ("saved_model", "a")):
        for which in ("last", "best"):
            path = command.export(linear_run, form, which, tmp_path / name)
            assert json.loads((tmp_path / f"{name}.json").read_text())["run"]["round"] == {"last": 4, "best": 2}[which]
            assert path == tmp_path / name
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "a.json", "a.keras", "a.keras.json"]


def test_a_model_that_stands_there_is_never_missing(tmp_path, linear_run, monkeypatch):
    path = command.export(linear_run, "saved_model", "best", tmp_path / "a")
    before, replace = (path / "saved_model.pb").read_bytes(), os.replace

    def fail(source, target):
        if pathlib.Path(target) == path and pathlib.Path(source).name == "whole":
            kept = [file.read_bytes() for file in tmp_path.rglob("saved_model.pb")]
            assert len(kept) == 2
            assert before in kept  # so a kill here loses nothing
            raise OSError(errno.EACCES, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    _refused(linear_run, "saved_model", "last", path, names=["--output", "Permission denied"])
    assert (path / "saved_model.pb").read_bytes() == before


def test_a_full_disk_leaves_the_earlier_model_and_nothing_new(tmp_path, linear_run, monkeypatch):
    path = command.export(linear_run, "keras", "best", tmp_path / "a.keras")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write_text = pathlib.Path.write_text

    def full(file, *arguments, **settings):
        if tmp_path in file.parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(file, *arguments, **settings)

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    for target in (path, tmp_path / "new" / "folder" / "a.keras"):
        _refused(linear_run, "keras", "last", target, names=["--output", "No space left on device"])
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def _refused(*arguments, names):
    return small_files.refusal(command.export, *arguments, names=names)


def test_a_place_that_cannot_be_written_is_refused(tmp_path, linear_run):
    (tmp_path / "file").write_text("precious")
    for form in command.FORMATS:
        _refused(linear_run, form, "last", tmp_path / "file" / "a.keras", names=["--output", "file"])
    (tmp_path / "mine.keras").mkdir()
    (tmp_path / "mine.keras" / "letter").write_text("precious")
    for form in command.FORMATS:
        _refused(linear_run, form, "last", tmp_path / "mine.keras", names=["--output", "mine"])
    assert (tmp_path / "mine.keras" / "letter").read_text() == (tmp_path / "file").read_text() == "precious"


def test_a_run_or_a_round_that_cannot_be_opened_is_refused(tmp_path, linear_run):
    _refused(tmp_path, "keras", names=[tmp_path, "not a run directory"])
    _refused(linear_run, "keras", "3", names=[linear_run, "round 3", "2, 4", "--rounds_per_model"])


def test_flags_without_effect_are_refused(linear_run, tmp_path):
    _refused(linear_run, "keras", "last", None, "fine_tune", names=["--strategy", "--format=keras"])
    _refused(linear_run, "saved_model", "last", None, None, True, names=["--quantize", "--format=saved_model"])
    _refused(linear_run, "tflite", "last", None, "fine_tune", True, names=["--strategy", "--quantize"])
    _refused(linear_run, "keras", "last", tmp_path / "model.h5", names=["model.h5", ".keras"])


def test_a_method_with_several_models_is_refused(finished_run):
    run = finished_run(model="linear", method="ifca", strategies="best_cluster")
    _refused(run, "keras", names=[run, "--method=ifca"])


def test_a_recurrent_network_is_not_trained_on_a_device(text_run):
    _refused(text_run, "tflite", names=["--format=tflite", "char_lstm", "keras"])


def test_the_command_writes_into_the_run_directory_and_says_where(linear_run):
    root = pathlib.Path(__file__).parents[2]
    arguments = [sys.executable, "-m", "tff_personalization.export", linear_run, "--format=tflite", "--round=best"]
    done = forked.run(arguments, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    path = linear_run / "export" / "round_2_fine_tune.tflite"
    assert str(path) in done.stdout
    assert json.loads(path.with_name(f"{path.name}.json").read_text())["personalization"]["strategy"] == "fine_tune"


def test_a_run_is_expected():
    small_files.refusal(command.main, ["export"], names=["run directory"])
