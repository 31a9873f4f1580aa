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


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nowhere.npz"], "Error: --client_data=nowhere.npz is neither a source"),
        (["digits", "more"], "Error: 'more': one source of data is expected"),
        (["digits", "--html=/nowhere/page.html"], "Error: --html=/nowhere/page.html cannot be written"),
        (["digits", "--plugin=nowhere.py"], "Error: --plugin=nowhere.py"),
    ],
)
def test_bad_input_is_one_line(arguments, error):
    done = inspect(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(error)
    assert done.stderr.count("\n") == 1
