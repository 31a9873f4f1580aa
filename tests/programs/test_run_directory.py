"""The run directory: what config.json says of a run, and when a run is refused as another's."""

import json
import shutil

import pytest
from absl import flags

from tff_personalization import errors
from tff_personalization.programs import config, run_directory
from tff_personalization.tasks import federated_data


@pytest.fixture
def directory_of(tmp_path):
    """Makes the run directory of a file of client data, as a start of the program does."""

    def make(path, *arguments):
        values = flags.FlagValues()
        config.define_flags(values)
        values(["program", f"--client_data={path}", "--test_clients=4", f"--output_dir={tmp_path}", *arguments])
        return run_directory.RunDirectory(config.from_flags(values))

    return make


@pytest.fixture
def begin(directory_of):
    """Begins a run on a file of client data, or goes on with it."""

    def start(path, *arguments, **how):
        directory = directory_of(path, *arguments)
        directory.create()
        directory.write_config(federated_data.load(directory.experiment.config), how)
        directory._lock.close()
        return directory

    return start


@pytest.fixture
def folds(tmp_path, by_writer_archive):
    """Two files of the same name and size, with other contents."""
    one, two = tmp_path / "fold1" / "data.npz", tmp_path / "fold2" / "data.npz"
    for path in (one, two):
        path.parent.mkdir()
        shutil.copyfile(by_writer_archive, path)
    with two.open("r+b") as file:
        file.seek(two.stat().st_size // 2)
        file.write(b"\xff\x00\xff")
    return one, two


def test_a_finished_run_is_not_that_of_another_file_of_the_same_name(begin, directory_of, folds):
    one, two = folds
    directory = begin(one)
    assert directory_of(two).path == directory.path  # what is not finished reads the data
    directory.write_json("summary.json", {})
    assert directory_of(one).finished
    with pytest.raises(errors.UserError, match=r"--client_data=.*fold2/data.npz: the file is not the one.*--run_name"):
        directory_of(two)
    shutil.copyfile(two, one)
    with pytest.raises(errors.UserError, match="is not the one"):
        directory_of(one)
    one.unlink()
    assert directory_of(one).finished


def test_a_finished_run_that_does_not_say_from_which_file_it_came_is_what_it_was(begin, directory_of, folds):
    directory = begin(folds[0])
    directory.write_json("summary.json", {})
    path = directory.path / "config.json"
    record = json.loads(path.read_text())
    del record["client_data_file"]
    path.write_text(json.dumps(record))
    assert directory_of(folds[1]).finished


def test_a_run_that_goes_on_with_the_same_examples_in_other_bytes_is_of_that_file(begin, directory_of, folds):
    one, two = folds
    begin(one)
    shutil.copyfile(one, two)
    with two.open("ab") as file:
        file.write(b"\0")  # behind the archive's end
    begin(two).write_json("summary.json", {})
    assert directory_of(two).finished
    with pytest.raises(errors.UserError, match="is not the one"):
        directory_of(one)
