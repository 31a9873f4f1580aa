"""The user's own modules: the documented example through the real program, and every mistake in one line."""

import contextlib
import json
import pathlib
import sys
from unittest import mock

import pandas as pd
import pytest

from tests import forked
from tff_personalization import errors, methods, plugins

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "my_plugin.py"


def program(*arguments):
    return forked.run(
        [sys.executable, "run_experiment.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_guide_shows_the_example_as_it_is():
    guide = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    assert f"```python\n{EXAMPLE.read_text(encoding='utf-8')}```\n" in guide


def test_the_example_runs_outside_the_package_with_its_own_flags(tmp_path, by_writer_archive):
    plugin = tmp_path / "a_plugin.py"
    plugin.write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    settings = [
        f"--plugin={plugin}",
        "--method=fed_prox_example",
        "--strategies=fine_tune,recentre",
        "--example_mu=0.5",
        "--example_share=1.0",
        f"--client_data={by_writer_archive}",
        "--model=linear",
        "--rounds=3",
        "--clients_per_round=3",
        "--test_clients=4",
        "--rounds_per_evaluation=0",
        "--personalization_epochs=2",
        f"--output_dir={tmp_path}",
        "--run_name=run",
        "--noplots",
    ]
    completed = program(*settings)
    assert completed.returncode == 0, completed.stderr
    assert "recentre" in completed.stdout
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["flags"]["example_mu"] == 0.5
    assert config["flags"]["plugin_sources"] == {"a_plugin": plugins.sha256([plugin])}
    clients = pd.read_csv(tmp_path / "run" / "clients.csv")
    loss = clients.pivot_table(index=["strategy", "client"], columns="epoch", values="loss")
    # A full return to θ after each epoch is no personalization; fine-tuning is some.
    assert loss.loc["recentre", 2].tolist() == pytest.approx(loss.loc["recentre", 0].tolist(), rel=1e-5)
    assert (loss.loc["fine_tune", 2] < loss.loc["fine_tune", 0]).all()

    other = program(*settings, "--example_mu=0.1")
    assert other.returncode == 1
    assert "example_mu was 0.5, is 0.1" in other.stderr
    plugin.write_text(plugin.read_text() + "# changed\n")
    assert "plugin_sources was" in program(*settings).stderr


USES_METHODS = (
    "import dataclasses\nfrom tff_personalization import methods\n"
    "from tff_personalization.settings import Group, Setting\n"
)
BAD_PLUGINS = {
    "no such module": ("no_such_module_at_all", None, ["no_such_module_at_all", "no such module"]),
    "no such file": ("no/such/file.py", None, ["no/such/file.py", "no such file"]),
    "nothing registered": ("p.py", "x = 1\n", ["p.py", "registers no task"]),
    "an error of its own": ("p.py", "x = 1\n1 / 0\n", ["p.py, line 2", "ZeroDivisionError"]),
    "not Python": ("p.py", "x = 1\ny = (\n", ["p.py, line 2", "SyntaxError"]),
    "a missing import": ("p.py", "import not_installed_at_all\n", ["p.py, line 1", "not_installed_at_all"]),
    "a taken name": (
        "p.py",
        f"{USES_METHODS}methods.register('fed_avg', methods.get('reptile'))\n",
        ["p.py", "method 'fed_avg' exists already"],
    ),
    "no word": (
        "p.py",
        f"{USES_METHODS}methods.register('my method', methods.get('reptile'))\n",
        ["p.py", "method 'my method'", "letters"],
    ),
    "a strategy that is a function": (
        "p.py",
        "from tff_personalization.personalization import strategies\nstrategies.register('mine', lambda: 1)\n",
        ["strategy 'mine' is registered as a function", "adaptation.Strategy is expected"],
    ),
    "a method that is a class": (
        "p.py",
        f"{USES_METHODS}methods.register('mine', Group)\n",
        ["method 'mine' is registered as the class Group", "algorithms.method.Method is expected"],
    ),
    "an aggregator that is a factory": (
        "p.py",
        "import tensorflow_federated as tff\nfrom tff_personalization import aggregators\n"
        "aggregators.register('mine', tff.aggregators.MeanFactory())\n",
        ["aggregator 'mine' is registered as a MeanFactory", "aggregators.Aggregator is expected"],
    ),
    **{
        f"a task with {value} as its {part}": (
            "p.py",
            "import tensorflow as tf\nfrom tff_personalization.models import outputs\n"
            "from tff_personalization.tasks import registry, sources\n"
            "parts = {'predicts': outputs.classes('ab'), 'features': tf.TensorSpec([2]),\n"
            "         'models': {'m': lambda n, rng: None}, 'sources': sources.own(mine=lambda options: None)}\n"
            f"registry.register('mine', registry.Task(**parts | {{'{part}': {value}}}))\n",
            [f"task 'mine': {part} is a", *hints],
        )
        for part, value, hints in [
            ("predicts", "['a', 'b']", ["list", "outputs.classes(names)"]),
            ("features", "(28, 28)", ["tuple", "a tf.TensorSpec of numbers"]),
            ("features", "tf.TensorSpec([], tf.string)", ["TensorSpec", "of numbers"]),
            ("features", "{'x': tf.TensorSpec([None])}", ["dict", "with a known shape"]),
            ("models", "{}", ["dict", "functions by name"]),
            ("sources", "sources.own()", ["Catalogue", "with a source"]),
            ("models", "{'m': tf.keras.Sequential([tf.keras.Input([2])])}", ["dict", "def network(num_logits, rng)"]),
            ("sources", "lambda options: None", ["function", "sources.own(name=load)"]),
            ("drawn", "True", ["bool", "unless an example is one character", "(28, 28)"]),
            (
                "drawn",
                "True, 'features': tf.TensorSpec([28, 28], tf.uint8), 'predicts': outputs.several_labels('AB')",
                ["bool", "unless an example is one character"],
            ),
        ]
    },
    "an optimizer that is a number": (
        "p.py",
        "from tff_personalization import optimizers\noptimizers.register('mine', 0.1)\n",
        ["optimizer 'mine' is registered as a float", "a function of learning_rate"],
    ),
    "an optimizer with an option without a default": (
        "p.py",
        "from tff_personalization import optimizers\noptimizers.register('mine', lambda learning_rate, x: 1)\n",
        ["optimizer 'mine'", "missing a required argument: 'x'"],
    ),
    "an optimizer with a word for an option": (
        "p.py",
        "from tff_personalization import optimizers\noptimizers.register('mine', lambda learning_rate, x='y': 1)\n",
        ["optimizer 'mine'", "option x is a str; a number is expected"],
    ),
    "a module's name": ("json.py", "x = 1\n", ["json.py", "'json' exists already", "rename"]),
    "a name that is no module's": ("my-plugin.py", "x = 1\n", ["'my-plugin' is no name of a module", "rename"]),
    "a mistake that the project finds": (
        "p.py",
        f"{USES_METHODS}\nclass Mine(Group):\n    mine = Setting(None, 'A number.')\n",
        ["p.py, line 6", "needs a kind"],
    ),
}


@pytest.mark.parametrize(("name", "source", "hints"), BAD_PLUGINS.values(), ids=BAD_PLUGINS)
def test_a_plugin_that_is_wrong_is_refused_in_one_line(tmp_path, monkeypatch, name, source, hints):
    if source is not None:
        (tmp_path / name).write_text(source)
        name = str(tmp_path / name)
    monkeypatch.delitem(sys.modules, "p", raising=False)
    with pytest.raises(errors.UserError) as refusal:
        plugins.load(["program", "--rounds", "3", f"--plugin={name}"])
    message = str(refusal.value)
    assert message.startswith("--plugin")
    assert "\n" not in message
    assert all(hint in message for hint in hints), message


BAD_FLAGS = {
    "a taken name": (
        "class Mine(Group):\n    rounds = Setting(1, '')\n"
        "methods.register('mine', dataclasses.replace(methods.get('reptile'), settings=Mine))\n",
        ["--rounds", "exists already", "another name"],
    ),
    "a flag of absl's": (
        "from absl import flags\nflags.DEFINE_integer('mine', 1, '')\n"
        "methods.register('mine', methods.get('reptile'))\n",
        ["--mine", "absl", "Setting"],
    ),
}


@pytest.mark.parametrize(("source", "hints"), BAD_FLAGS.values(), ids=BAD_FLAGS)
def test_flags_of_a_plugin_that_are_wrong_are_one_line_and_exit_status_1(tmp_path, source, hints):
    (tmp_path / "p.py").write_text(USES_METHODS + source)
    (tmp_path / "p.flags").write_text(f"--plugin={tmp_path / 'p.py'}\n")
    completed = program(f"--flagfile={tmp_path / 'p.flags'}", "--rounds", "3")
    assert completed.returncode == 1
    (line,) = completed.stderr.splitlines()
    assert line.startswith("Error: --")
    assert all(hint in line for hint in hints), line


def test_plugins_are_named_with_commas_or_one_by_one_and_count_once():
    assert plugins.split(["a,b", "c.py", "a"]) == ["a", "b", "c.py"]
    assert plugins.split(["a.py, ./a.py, b", f"{pathlib.Path('a.py').absolute()}"]) == ["a.py", "b"]


def test_a_plugin_that_has_changed_since_it_was_imported_is_refused(tmp_path):
    plugin = tmp_path / "changing_plugin.py"
    plugin.write_text(f"{USES_METHODS}methods.register('changing', methods.get('reptile'))\n")
    with contextlib.ExitStack() as stack:
        for registered in (methods.METHODS, plugins._loaded, plugins._files_of):
            stack.enter_context(mock.patch.dict(registered))
        plugins.load_again([str(plugin)], {})
        plugins.load_again([str(plugin)], {})
        plugin.write_text(plugin.read_text() + "x = 1\n")
        with pytest.raises(errors.UserError, match="changing_plugin has changed since it was imported: restart Python"):
            plugins.load_again([str(plugin)], {})


def test_the_path_of_a_plugin_may_have_commas_and_spaces(tmp_path):
    path = tmp_path / "of Smith, 2024" / "p,q.py"
    path.parent.mkdir()
    path.write_text("")
    assert plugins.split([f"a,{path},b", str(path)]) == ["a", str(path), "b"]


PLUGIN = """
import helper_of_a_test
from tff_personalization.personalization import adaptation, strategies

def curve(client, tuning):
    return helper_of_a_test.curve(client, tuning)

strategies.register("of_a_test", adaptation.Strategy("of a test", curve))
"""
HELPER = """
def curve(client, tuning):
    from package_of_a_test.within import helper
    raise ValueError("of the helper:\\nin two lines")
"""


def test_an_error_inside_a_plugin_is_one_line_after_the_traceback_from_its_frames_on(tmp_path, by_writer_archive):
    (tmp_path / "of, a test").mkdir()
    plugin = tmp_path / "of, a test" / "p.py"
    plugin.write_text(PLUGIN)
    plugin.with_name("helper_of_a_test.py").write_text(HELPER)
    within = plugin.with_name("package_of_a_test") / "within" / "helper.py"
    within.parent.mkdir(parents=True)
    within.write_text("")
    settings = [f"--client_data={by_writer_archive}", "--model=linear", "--rounds=1", "--clients_per_round=2"]
    settings += ["--test_clients=4", "--strategies=of_a_test", "--rounds_per_evaluation=0", f"--output_dir={tmp_path}"]
    completed = program(f"--plugin={plugin}", *settings, "--run_name=run", "--noplots", "--local_epochs=1")
    assert completed.returncode == 1
    lines = completed.stderr.splitlines()
    assert lines[-1] == f"Error: --plugin={plugin}: ValueError: of the helper: in two lines"
    traced = [line for line in lines if line.startswith("  File ")]
    assert [line.split(", line")[0].split("/")[-1] for line in traced] == ['p.py"', 'helper_of_a_test.py"']
    sources = json.loads((tmp_path / "run" / "config.json").read_text())["flags"]["plugin_sources"]
    files = {"p": plugin, "helper_of_a_test": plugin.with_name("helper_of_a_test.py"), "package_of_a_test": within}
    assert sources == {name: plugins.sha256([file]) for name, file in files.items()}
    within.write_text("x = 1")
    again = program(f"--plugin={plugin}", *settings, "--run_name=run", "--noplots", "--local_epochs=1")
    assert "plugin_sources was" in again.stderr.splitlines()[-1]


SENSORS = '''
"""Sensors whose readings are made up."""
import numpy as np
import tensorflow as tf
from tff_personalization.models import outputs
from tff_personalization.settings import Group, Setting
from tff_personalization.tasks import conversions, registry, sources


class Sensors(Group):
    sensor_noise = Setting(0.5, "How much the made-up sensors differ.", theme="data", least=0)


def load(options):
    rng = np.random.default_rng(options.seed)
    x = rng.normal(options.settings.sensor_noise, 1, (60, 3)).astype(np.float32)
    return conversions.from_arrays(
        x, rng.integers(0, 2, 60), np.repeat([f"s{i}" for i in range(6)], 10), classes=("low", "high"), source="sensors"
    )


registry.register(
    "sensors_of_a_test",
    registry.Task(
        outputs.classes(("low", "high")),
        tf.TensorSpec([3]),
        {"dense": lambda count, rng: tf.keras.Sequential([tf.keras.Input([3]), tf.keras.layers.Dense(count)])},
        sources.own(sensors=sources.WithSettings(load, Sensors)),
    ),
)
'''


def test_a_source_of_a_plugin_has_settings_of_its_own(tmp_path):
    plugin = tmp_path / "sensors_plugin.py"
    plugin.write_text(SENSORS)
    task = [f"--plugin={plugin}", "--task=sensors_of_a_test"]
    assert "--sensor_noise: [data] How much the made-up sensors differ." in program(*task, "--help").stdout
    settings = [*task, "--method=local_only", "--strategies=local_only", "--test_clients=2", "--noplots"]
    settings += ["--personalization_epochs=0", f"--output_dir={tmp_path}"]
    completed = program(*settings, "--run_name=run", "--sensor_noise=3.5")
    assert completed.returncode == 0, completed.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["flags"]["sensor_noise"] == config["given"]["sensor_noise"] == 3.5
    from tff_personalization.records import finished_run
    from tff_personalization.tasks import registry

    with contextlib.ExitStack() as stack:
        for registered in (registry.TASKS, registry.MODELS, plugins._loaded):  # what opening the run adds to
            stack.enter_context(mock.patch.dict(registered))
        x, _ = finished_run.FinishedRun.open(tmp_path / "run").data.train.examples("s0")
    assert x.mean() > 3  # read with the run's setting
    refused = program(f"--client_data={tmp_path}", "--sensor_noise=3", "--rounds=1", *task[:1], "--task=emnist62")
    assert refused.returncode == 1
    assert "--sensor_noise" in refused.stderr
