"""The TensorFlow Lite file against the project's own model and inner loop."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow.lite.tools import flatbuffer_utils

from tests import numpy_oracle
from tests.tasks.sources import small_files
from tff_personalization import errors, local_training, optimizers
from tff_personalization.export import global_model, on_device, tflite
from tff_personalization.records.finished_run import FinishedRun

SEED = np.array([8, -9], np.int32)


def opened(run, strategy=None, optimizer=None):
    """The run's global model, and the file of it in an interpreter."""
    found = global_model.read(FinishedRun.open(run))
    how = tflite.personalization(found, strategy)
    if optimizer is not None:
        how = dataclasses.replace(how, optimizer=optimizer)
    content = tflite.convert(found, how)
    return found, content, on_device.OnDevice(content)


@pytest.fixture(scope="module")
def of_cnn(cnn_run):
    return opened(cnn_run)


def test_the_file_needs_only_built_in_operations(of_cnn):
    _, content, _ = of_cnn
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    assert [code.customCode for code in model.operatorCodes if code.customCode] == []


def test_predictions_are_the_projects_for_any_number_of_images(of_cnn, examples):
    found, _, device = of_cnn
    device.initialize()
    for count in (1, 23, 3):
        expected = found.run.model.logits(tuple(map(tf.constant, found.weights)), examples[0][:count], None)
        np.testing.assert_allclose(device.logits(examples[0][:count]), expected, atol=1e-5)


def test_training_steps_are_those_of_the_inner_loop_with_the_same_dropout_and_a_last_short_batch(of_cnn, examples):
    found, _, device = of_cnn
    device.initialize()
    training = local_training.LocalTraining(found.run.model, tff.learning.optimizers.build_sgdm(0.02), 20)
    state = training.initial_state(tuple(map(tf.constant, found.weights)))
    epochs = device.metadata["personalization"]["epochs"]
    of_client = local_training.Examples(*map(tf.constant, examples))
    after = training.steps(state, of_client, tf.constant(SEED), 0, 2 * epochs)
    device.fine_tune(*examples, SEED)
    saved = device.save()
    for place, weights in enumerate(after.weights):
        np.testing.assert_allclose(saved[f"weight_{place}"], weights, atol=1e-5)


def test_dropout_depends_on_its_seed(of_cnn, examples):
    _, _, device = of_cnn
    losses = []
    for seed in ([1, 2], [1, 2], [1, 3]):
        device.initialize()
        losses.append(device.train(*examples, np.array(seed, np.int32)))
    assert losses[0] == losses[1] != losses[2]


def test_what_was_saved_is_restored_in_another_interpreter_and_initialize_goes_back(of_cnn, examples):
    _, content, device = of_cnn
    device.initialize()
    before = device.logits(examples[0])
    device.train(*examples, SEED)
    trained, saved = device.logits(examples[0]), device.save()
    assert np.abs(trained - before).max() > 1e-3
    other = on_device.OnDevice(content)
    np.testing.assert_array_equal(other.logits(examples[0]), before)  # a new interpreter has the global model
    other.restore(saved)
    np.testing.assert_array_equal(other.logits(examples[0]), trained)
    device.initialize()
    np.testing.assert_array_equal(device.logits(examples[0]), before)


def test_the_file_says_what_an_app_has_to_know(of_cnn, cnn_run):
    _, _, device = of_cnn
    said, record = device.metadata, json.loads((cnn_run / "config.json").read_text())
    assert len(said["classes"]) == 62
    assert "ink 255 on background 0" in said["input"]
    assert said["run"]["round"] == 4
    for name in ("source", "synthetic", "seed", "git_commit", "data_sha256"):
        assert said["run"][name] == record[name]
    expected = {"strategy": "fine_tune", "epochs": 5, "batch_size": 20}
    assert expected.items() <= said["personalization"].items()
    assert said["personalization"]["optimizer"] == {"name": "sgd", "learning_rate": 0.02}


def test_the_strategy_says_which_weights_are_trained(cnn_run):
    model = global_model.read(FinishedRun.open(cnn_run)).run.model
    trained = {name: places(model) for name, places in tflite.TRAINED.items()}
    of_all = ("fine_tune", "fine_tune_adam", "fine_tune_early_stopping")
    expected = {**{name: list(range(8)) for name in of_all}, "fine_tune_head": [6, 7], "fine_tune_biases": [1, 3, 5, 7]}
    assert trained == expected


def test_the_other_weights_stay_as_they_are(linear_run, examples):
    found, _, device = opened(linear_run, "fine_tune_biases")
    device.train(*examples, SEED)
    saved = device.save()
    assert list(saved) == ["weight_1"]
    with tf.GradientTape() as tape:
        weights = tuple(map(tf.constant, found.weights))
        tape.watch(weights)
        loss = found.run.model.scoring.loss(
            found.run.model.logits(weights, examples[0], tf.constant(SEED)), examples[1]
        )
    gradients = tape.gradient(loss, weights)
    new = tuple(saved.get(f"weight_{i}", w) for i, w in enumerate(found.weights))
    np.testing.assert_allclose(new[1], weights[1] - 0.02 * gradients[1], atol=1e-6)
    expected = found.run.model.logits(tuple(map(tf.constant, new)), examples[0], None)
    np.testing.assert_allclose(device.logits(examples[0]), expected, atol=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.OptimizerSpec("sgd", 0.1, {"momentum": 0.9}),
        *(optimizers.OptimizerSpec(name, 0.01) for name in ("adam", "adamw", "adagrad", "yogi", "rmsprop")),
    ],
    ids=lambda spec: spec.name,
)
def test_steps_are_those_of_tffs_optimizer_and_its_state_is_saved_too(linear_run, examples, optimizer):
    found, content, device = opened(linear_run, optimizer=optimizer)
    x, y = examples
    weights = tuple(map(tf.constant, found.weights))
    reference = optimizer.build()
    state = reference.initialize(tuple(tf.TensorSpec(w.shape, w.dtype) for w in weights))
    for step in range(3):
        if step == 2:  # in another interpreter, from what was saved
            saved = device.save()
            device = on_device.OnDevice(content)
            device.restore(saved)
        device.train(x, y, SEED)
        gradients = numpy_oracle.gradient([w.numpy().astype(np.float64) for w in weights], numpy_oracle.flat(x), y)
        gradients = tuple(tf.constant(g, tf.float32) for g in gradients)
        state, weights = reference.next(state, weights, gradients)
    saved = device.save()
    for place, expected in enumerate(weights):
        np.testing.assert_allclose(saved[f"weight_{place}"], expected, atol=1e-5)


def test_fine_tune_adam_takes_adams_steps_at_its_own_rate(linear_run):
    how = tflite.personalization(global_model.read(FinishedRun.open(linear_run)), "fine_tune_adam")
    assert how.as_json()["optimizer"] == {"name": "adam", "learning_rate": 0.002}


def test_an_optimizer_that_cannot_be_converted_is_refused(linear_run, monkeypatch):
    class Strange(type(tff.learning.optimizers.build_sgdm())):
        def next(self, state, weights, gradients):
            return state, tuple(tf.math.igamma(w, g) for w, g in zip(weights, gradients, strict=True))

    monkeypatch.setitem(optimizers.OPTIMIZERS, "strange", Strange)
    found = global_model.read(FinishedRun.open(linear_run))
    how = dataclasses.replace(tflite.personalization(found), optimizer=optimizers.OptimizerSpec("strange", 0.1))
    small_files.refusal(tflite.convert, found, how, names=["--personalization_optimizer=strange", "adam"])


def test_quantized_predictions_are_near_and_the_file_is_a_quarter(of_cnn, examples):
    found, content, device = of_cnn
    device.initialize()
    quantized = tflite.convert_quantized(found)
    assert len(quantized) < 0.3 * len(content)
    small = on_device.OnDevice(quantized)
    assert "personalization" not in small.metadata
    exact = device.logits(examples[0])
    assert np.abs(small.logits(examples[0]) - exact).max() < 0.05 * np.abs(exact).max()


def test_a_strategy_that_a_device_cannot_follow_is_refused(finished_run):
    run = finished_run(model="linear", strategies="knn_per,fine_tune")
    found = global_model.read(FinishedRun.open(run))
    small_files.refusal(tflite.personalization, found, names=[run, "knn_per", "--strategy", "fine_tune_head"])
    assert tflite.personalization(found, "fine_tune").strategy == "fine_tune"


def test_a_file_of_another_form_is_refused(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"nonsense")
    small_files.refusal(on_device.open_file, tmp_path / "a.tflite", names=["a.tflite", "--format=tflite"])
    small_files.refusal(on_device.open_file, tmp_path / "none.tflite", names=["none.tflite"])
    with pytest.raises(errors.UserError):
        on_device.open_file(tmp_path)
