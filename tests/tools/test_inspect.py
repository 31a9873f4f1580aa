"""The command that inspects client data before training."""

import sys

import numpy as np
import pytest

from tests import forked
from tests.tasks.sources import small_files


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("inspect") / "hands.npz"
    np.savez(path, **small_files.arrays(count=60))
    return path


NUMBERS = """
import numpy as np
import tensorflow as tf
from tff_personalization.models import outputs
from tff_personalization.tasks import conversions, registry, sources


def load(options):
    x = np.zeros((12, 2), np.float32)
    return conversions.from_arrays(x, x[:, 0], np.arange(12) % 3, ["speed"], "made up")


predicts = outputs.real_numbers(["speed"], within=1)
registry.register(
    "numbers_of_a_test", registry.Task(predicts, tf.TensorSpec([2]), {"none": lambda *_: 0}, sources.own(made_up=load))
)
"""

WITH_SETTINGS = (
    NUMBERS.replace("x[:, 0],", "x[:, :1],")
    .replace('"made up"', 'f"made up to {options.settings.fastest}"')
    .replace("sources.own(made_up=load)", "sources.own(made_up=sources.WithSettings(load, Settings))")
    .replace(
        "\n\ndef load",
        "from tff_personalization.settings import Group, Setting\n\n\n"
        "class Settings(Group):\n    fastest = Setting(3, 'The highest speed.', least=0)\n\n\ndef load",
    )
)


def inspect(*arguments):
    command = [sys.executable, "-m", "tff_personalization.inspect", *map(str, arguments)]
    return forked.run(command, capture_output=True, text=True, check=False)


def test_it_says_what_there_is_and_writes_a_page_without_references(archive, tmp_path):
    page = tmp_path / "page.html"
    done = inspect(archive, f"--html={page}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "clients   3\n" in done.stdout
    assert "examples  60 (" in done.stdout
    assert done.stdout.endswith(f"Page: {page}\n")
    text = page.read_text(encoding="utf-8")
    assert text.count("<img ") == text.count('src="data:image/png;base64,') == 2


def test_a_finding_is_printed_and_does_not_change_the_status(tmp_path):
    arrays = small_files.arrays(count=60)
    arrays["images"] = arrays["images"] // 8
    np.savez(tmp_path / "faint.npz", **arrays)
    done = inspect(tmp_path / "faint.npz")
    assert done.returncode == 0
    assert "  range: 3 of 3 clients" in done.stdout


def test_the_clients_of_a_plugins_task_need_no_path():
    done = inspect("--plugin=examples/wages.py", "--task=wages")
    assert (done.returncode, done.stderr) == (0, "")
    assert "wage panel of 545 men, 1980 to 1987" in done.stdout
    assert "clients   545\n" in done.stdout


def test_the_settings_of_a_plugins_source_are_flags(tmp_path):
    plugin = tmp_path / "plugin_of_a_test.py"
    plugin.write_text(WITH_SETTINGS)
    done = inspect(f"--plugin={plugin}", "--task=numbers_of_a_test", "--fastest=5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "made up to 5\n" in done.stdout
    refused = inspect(f"--plugin={plugin}", "--task=numbers_of_a_test", "--fastest=-1")
    assert refused.stderr == "Error: --fastest=-1: give 0 or more.\n"


def test_data_that_does_not_fit_the_task_is_one_line(tmp_path):
    plugin = tmp_path / "plugin_of_a_test.py"
    plugin.write_text(NUMBERS)
    done = inspect(f"--plugin={plugin}", "--task=numbers_of_a_test")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: --client_data=made_up: the client data has labels of float32 and shape (N,)")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nowhere.npz"], "Error: --client_data=nowhere.npz is neither a source"),
        (["digits", "more"], "Error: 'more': one source of data is expected"),
        (["digits", "--html=/dev/null/page.html"], "Error: --html: /dev/null/page.html cannot be written"),
        (["digits", "--plugin=nowhere.py"], "Error: --plugin=nowhere.py"),
    ],
)
def test_bad_input_is_one_line(arguments, error):
    done = inspect(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(error)
    assert done.stderr.count("\n") == 1
