"""Which current programs load which form: in another environment with its own TensorFlow and Keras.

python3.11 -m venv /tmp/current && /tmp/current/bin/pip install tensorflow-cpu
CURRENT_TENSORFLOW=/tmp/current/bin/python python -m pytest tests/export/test_current_tensorflow.py -s
"""

import json
import os
import subprocess

import numpy as np
import pytest

from tff_personalization.export import __main__ as command
from tff_personalization.records import finished_run

PYTHON = os.environ.get("CURRENT_TENSORFLOW", "")
LOADER = """
import json, sys
import keras, numpy as np, tensorflow as tf

keras_file, saved_model, tflite, images = sys.argv[1:]
x = np.load(images)
found = {"tensorflow": tf.__version__, "keras": keras.__version__}

def load(name, make):
    try:
        found[name] = np.asarray(make()).tolist()
    except Exception as error:
        found[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"

def by_interpreter():
    infer = tf.lite.Interpreter(tflite).get_signature_runner("infer")
    return infer(x=x)["logits"]

load("keras: keras.models.load_model", lambda: keras.models.load_model(keras_file)(x))
serving = tf.saved_model.load(saved_model).signatures["serving_default"]
load("saved_model: tf.saved_model.load", lambda: serving(x=x)["logits"])
layer = keras.layers.TFSMLayer(saved_model, call_endpoint="serving_default")
load("saved_model: keras.layers.TFSMLayer", lambda: layer(x)["logits"])
load("saved_model: keras.models.load_model", lambda: keras.models.load_model(saved_model)(x))
load("tflite: tf.lite.Interpreter", by_interpreter)
print(json.dumps(found))
"""
LOADS = (
    "keras: keras.models.load_model",
    "saved_model: tf.saved_model.load",
    "saved_model: keras.layers.TFSMLayer",
    "tflite: tf.lite.Interpreter",
)
REFUSES = "saved_model: keras.models.load_model"


@pytest.mark.skipif(not PYTHON, reason="CURRENT_TENSORFLOW names no Python with a current TensorFlow")
def test_forms_are_loaded_by_a_current_tensorflow_and_give_the_same_logits(cnn_run, tmp_path, examples):
    images, _ = examples
    np.save(tmp_path / "x.npy", images)
    names = {"keras": "m.keras", "saved_model": "m", "tflite": "m.tflite"}
    files = [command.export(cnn_run, form, path=tmp_path / name) for form, name in names.items()]
    opened = finished_run.FinishedRun.open(cnn_run)
    expected = np.asarray(opened.model.logits(opened.global_weights().model, images, None))
    arguments = [PYTHON, "-c", LOADER, *map(str, files), str(tmp_path / "x.npy")]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_HOME"}
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    found = json.loads(done.stdout.splitlines()[-1])
    print({name: value if isinstance(value, str) else "loads" for name, value in found.items()})
    for name in LOADS:
        np.testing.assert_allclose(found[name], expected, atol=1e-3, err_msg=name)
    assert found[REFUSES].startswith("ValueError")  # Keras 3 reads no SavedModels: docs/on-device.md
