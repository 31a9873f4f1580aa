"""The example plugins with their own tasks, through methods, strategies, comparison, report and export."""

import contextlib
import importlib.util
import json
import pathlib
import re
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

import tff_personalization as tp
from analysis import compare_methods, metric, outcome, runs
from analysis.report import __main__ as page
from tests import shared_graphs
from tff_personalization import errors, local_training, plugins
from tff_personalization.export import __main__ as export
from tff_personalization.export import prove
from tff_personalization.tasks import registry

TARGET = 1.5  # a mean absolute error
ROOT = pathlib.Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "your-own.md").read_text(encoding="utf-8")
STRATEGIES = ["fine_tune", "ditto"]
SMALL = {"rounds": 3, "clients_per_round": 2, "personalization_epochs": 1, "rounds_per_evaluation": 0, "plots": False}
SMALL |= {"client_learning_rate": 0.05, "local_epochs": 1}


@pytest.fixture(autouse=True)
def _plugins_of_this_test_only(worker):
    before = set(sys.modules)
    registries = (mock.patch.dict(registered) for registered in (registry.TASKS, registry.MODELS, plugins._loaded))
    with contextlib.ExitStack() as stack:
        for patch in (*registries, shared_graphs.shared(worker)):
            stack.enter_context(patch)
        yield
    for name in ("own_table", "keras_characters", "wages", "wage_regression", "baseline_task", "several_labels_plugin"):
        if name not in before:
            sys.modules.pop(name, None)


def _run(tmp_path, name, **settings):
    """A run of Personalized FedAvg, and so of FedAvg and Reptile; its table is made and its page is written."""
    settings |= {"plugin": ROOT / "examples" / f"{name}.py", "output_dir": tmp_path, "strategies": STRATEGIES}
    run = tp.run(method="personalized_fed_avg", stage_2_round=2, **SMALL | settings)
    table = tp.compare([run]).table
    assert table["strategy"].tolist() == STRATEGIES
    assert table["personalized_accuracy"].between(0, run.metric.upper).all()
    assert page.write(run.directory).stat().st_size > 10_000
    source = json.loads((run.directory / "config.json").read_text())["flags"]["plugin_sources"]
    assert source == {name: plugins.sha256([ROOT / "examples" / f"{name}.py"])}
    return run


def test_the_guides_first_file_takes_its_table_and_trains(tmp_path):
    code = (ROOT / "examples" / "own_table.py").read_text(encoding="utf-8")
    assert f"```python\n{code}```\n" in GUIDE
    plugin = tmp_path / "own_table.py"
    plugin.write_text(code)
    settings = {"plugin": plugin, "task": "activity", "output_dir": tmp_path, **SMALL}
    rows = re.search(r"```\n(person,.*?)```", GUIDE, re.DOTALL)[1].splitlines()
    (tmp_path / "activity.csv").write_text("\n".join([rows[0], *rows[1:] * 10]))
    run = tp.run(**settings, test_clients=1)
    assert run.source == "my table of activities"
    assert run.clients["client"].isin(["ann", "ben"]).all()


def test_a_users_keras_network_on_characters_is_exported_for_devices_too(tmp_path, by_writer_archive):
    settings = {"task": "my_characters", "client_data": by_writer_archive, "test_clients": 4}
    run = _run(tmp_path, "keras_characters", **settings)
    x, _ = run.data.test.examples(run.data.split.test[0])
    weights = run.global_weights().model
    logits = run.model.logits(weights, x, None).numpy()
    np.testing.assert_allclose(run.keras_model()(x[..., np.newaxis].astype(np.float32)), logits, atol=1e-5)
    device = tf.lite.Interpreter(str(export.export(run.directory, "tflite")))
    infer, train, seed = (device.get_signature_runner(name) for name in ("infer", "train", "metadata"))
    np.testing.assert_allclose(infer(x=x)["logits"], logits, atol=1e-4)
    assert json.loads(seed()["json"].item())["task"] == "my_characters"
    batch = {"x": x[:4], "y": np.zeros(4, np.int32), "dropout_seed": np.array([1, 2], np.int32)}
    losses = [float(train(**batch)["loss"]) for _ in range(5)]
    assert losses[-1] < losses[0]


@pytest.mark.skipif(importlib.util.find_spec("linearmodels") is None, reason="its table is in linearmodels")
def test_a_regression_is_judged_by_its_own_metric_which_is_named(tmp_path, capsys):
    of_validation = {"validation_clients": 4, "rounds_per_evaluation": 1, "target_accuracy": TARGET}
    settings = {"train_clients": 20, "test_clients": 8, **of_validation}
    run = _run(tmp_path, "wage_regression", task="wage_regression", **settings)
    config = json.loads((run.directory / "config.json").read_text())
    assert (config["metric"], config["higher_is_better"], config["largest_score"]) == ("absolute error", False, 2.0)
    client = run.clients["client"][0]
    x, y = run.data.test.examples(client)
    assert y.dtype == np.float32
    said = run.model.logits(run.global_weights().model, x, None).numpy()
    initial = run.clients[(run.clients["client"] == client) & (run.clients["epoch"] == 0)].iloc[0]
    assert initial["accuracy"] == pytest.approx(np.minimum(np.abs(said - y), 2).mean(), rel=1e-5)
    assert initial["loss"] == pytest.approx(np.mean((said - y) ** 2), rel=1e-5)
    by_epoch = run.clients[run.clients["strategy"] == "fine_tune"].pivot(
        index="client", columns="epoch", values="accuracy"
    )
    gain = by_epoch[0] - by_epoch[1]
    assert run.summary["gain"]["mean"] == pytest.approx(gain.mean())
    assert run.summary["share_hurt"] == pytest.approx((gain < 0).mean())
    evaluations = run.evaluations
    judged = evaluations[(evaluations["split"] == "validation") & (evaluations["strategy"] == "fine_tune")]
    on_validation = judged[judged["epoch"] == 1].set_index("round")["accuracy_mean"]
    assert run.summary["validation_round"]["round"] == on_validation.idxmin()
    assert run.choice.loc[run.choice["chosen"] == "True", "accuracy_mean"].item() == run.choice["accuracy_mean"].min()
    reached = run.metrics.loc[run.metrics["initial_accuracy"] <= TARGET, "round"]
    assert run.summary["rounds_to_target"]["initial"] == reached.iloc[0]
    device = tf.lite.Interpreter(str(export.export(run.directory, "tflite")))
    infer, train = (device.get_signature_runner(name) for name in ("infer", "train"))
    answer = infer(x=x)
    assert list(answer) == ["logits"]
    np.testing.assert_allclose(answer["logits"], said, atol=1e-5)
    assert_a_step_is_the_projects(run, x, y, infer, train)
    table = compare_methods.render(compare_methods.compare([run]), "markdown")
    shown = (table, outcome.sentence(run), visible((run.directory / "report.html").read_text()))
    for text in shown:
        assert "absolute error" in text
        assert not re.search(r"(?i)\baccurac", text)
    with pytest.raises(errors.UserError, match="the first has the metric 'accuracy' and the second 'absolute error'"):
        metric.of([runs.read(ROOT / "docs" / "results" / "quick"), run])


def assert_a_step_is_the_projects(run, x, y, infer, train):
    """One step of fine-tuning on a device leaves the weights that the inner loop leaves."""
    training = local_training.LocalTraining(run.model, run.experiment.optimizers["personalization"].build(), None)
    start = training.initial_state(tuple(map(tf.constant, run.global_weights().model)))
    end = training.step(start, local_training.Examples(tf.constant(x), tf.constant(y)), tf.constant([1, 2]))
    loss = train(x=x, y=y, dropout_seed=np.array([1, 2], np.int32))["loss"]
    assert float(loss) == pytest.approx(float(end.loss_sum / y.size), rel=1e-5)
    np.testing.assert_allclose(infer(x=x)["logits"], run.model.logits(end.weights, x, None), atol=1e-5)


def visible(page_text):
    """The visible texts of a page: its text, and the titles and hover texts of its figures; not code and downloads."""
    body = page_text[page_text.index("<body>") :]
    code = r'<script>.*?</script>|href="data:[^"]*"|src="data:[^"]*"'
    return re.sub(code, "", body, flags=re.DOTALL)


@pytest.mark.skipif(importlib.util.find_spec("linearmodels") is None, reason="its table is in linearmodels")
def test_real_people_with_two_labels_and_two_named_inputs(tmp_path):
    run = _run(tmp_path, "wages", task="wages", train_clients=20, test_clients=8)
    assert run.source == "wage panel of 545 men, 1980 to 1987"
    rows = run.clients
    assert (rows["test_examples"] == 2).all()
    assert (rows["test_predictions"] == 4).all()
    client = rows["client"][0]
    packed, labels = run.data.test.examples(client)
    logits = run.model.logits(run.global_weights().model, packed, None).numpy()
    first = rows[(rows["client"] == client) & (rows["epoch"] == 0)]
    assert (first["correct"] == ((logits > 0) == labels).sum()).all()
    exported = tf.keras.models.load_model(export.export(run.directory, "keras"))
    groups, work = packed[:, :11], packed[:, 11:]  # by name
    np.testing.assert_allclose(exported({"work": work, "groups": groups}), logits, atol=1e-5)
    with pytest.raises(errors.UserError, match="cannot train the layers of --model=two_inputs"):
        export.export(run.directory, "tflite")
    with pytest.raises(errors.UserError, match="knn_per is for tasks with one class for each example"):
        tp.run(**run.config["given"] | {"strategies": ["knn_per"]})


def test_a_baseline_task_of_tffs(tmp_path):
    run = _run(tmp_path, "baseline_task", task="tff_tags", test_clients=1)
    assert run.source.startswith("synthetic Stack Overflow tags")
    assert len(run.clients["client"].unique()) == 1
    assert run.keras_model()(np.zeros([1, *run.task.features.shape], np.float32)).shape == (1, 20)


def test_several_labels_are_predicted_and_trained_on_a_device(tmp_path):
    plugin = tmp_path / "several_labels_plugin.py"
    plugin.write_text(SEVERAL_LABELS)
    settings = {"task": "tags_of_a_test", "test_clients": 2, **SMALL, "strategies": ["fine_tune"]}
    run = tp.run(plugin=plugin, output_dir=tmp_path, **settings)
    x, y = run.data.test.examples(run.data.split.test[0])
    logits = run.model.logits(run.global_weights().model, x, None).numpy()
    device = tf.lite.Interpreter(str(export.export(run.directory, "tflite")))
    infer, train = (device.get_signature_runner(name) for name in ("infer", "train"))
    answer = infer(x=x)
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(answer["probabilities"], 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert_a_step_is_the_projects(run, x, y, infer, train)
    with pytest.raises(errors.UserError, match="a proof needs one class for each example"):
        prove.prove(run.directory, export.export(run.directory, "tflite"), 1)


SEVERAL_LABELS = """
import numpy as np
import tensorflow as tf
from tff_personalization.models import outputs
from tff_personalization.tasks import conversions, registry, sources

TAGS = ("a", "b", "c")


def load(options):
    rng = np.random.default_rng(options.seed)
    x = rng.normal(0, 1, (60, 4)).astype(np.float32)
    y = (x[:, :3] > 0).astype(np.int32)
    return conversions.from_arrays(x, y, np.repeat([f"c{i}" for i in range(6)], 10), TAGS, "synthetic tags")


def network(count, rng):
    layers = tf.keras.layers
    return tf.keras.Sequential([tf.keras.Input([4]), layers.Dense(8, "relu"), layers.Dense(count)])


registry.register(
    "tags_of_a_test",
    registry.Task(
        outputs.several_labels(TAGS), tf.TensorSpec([4]), {"small_tags": network}, sources.own(made_up_tags=load)
    ),
)
"""
