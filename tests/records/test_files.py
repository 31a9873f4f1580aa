"""Files are whole or unchanged; TensorFlow's file errors become Python's."""

import errno
import json
import math
import os
import resource
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tff_personalization.records import files, tensorflow_errors


def test_a_full_disk_is_distinguished_from_a_full_memory(tmp_path):
    with pytest.raises(OSError, match="No space left") as full, tensorflow_errors.as_os_errors(tmp_path):
        raise tf.errors.ResourceExhaustedError(None, None, f"{tmp_path}/x; No space left on device")
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(MemoryError), tensorflow_errors.as_os_errors(tmp_path):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[784,62]")


@pytest.fixture
def full_disk():
    """Limits every file to 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_is_named_and_leaves_what_was_there(tmp_path, full_disk, recwarn):
    arrays, text = tmp_path / "a.npz", tmp_path / "a.csv"
    files.save_arrays(arrays, [np.arange(3)])
    files.write_text(text, "whole")
    for path, write in (
        (arrays, lambda: files.save_arrays(arrays, [np.arange(1000)])),
        (text, lambda: files.write_text(text, 2000 * "x")),
    ):
        with pytest.raises(OSError, match="too large") as failed:
            write()
        assert failed.value.filename == str(path)
    np.testing.assert_array_equal(files.load_arrays(arrays)["arr_0"], np.arange(3))
    assert text.read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.npz"]
    assert not recwarn.list


def test_two_processes_that_write_one_file_do_not_disturb_each_other(tmp_path, monkeypatch):
    replace, path = os.replace, tmp_path / "a.csv"

    def after_another_process(*names):
        monkeypatch.setattr(os, "replace", replace)
        with mock.patch.object(os, "getpid", return_value=1):
            files.write_text(path, "theirs")
        replace(*names)

    monkeypatch.setattr(os, "replace", after_another_process)
    files.write_text(path, "ours")
    assert path.read_text() == "ours"


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "a.csv", "x")
    assert not list(tmp_path.iterdir())


def test_the_whole_content_is_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    path, steps = tmp_path / "a.csv", []
    fsync, replace = os.fsync, os.replace

    def record_fsync(file):
        steps.append(("on the disk", os.fstat(file).st_size, path.exists()))
        fsync(file)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("named"), replace(*names)))
    files.write_text(path, "whole")
    assert steps == [("on the disk", len("whole"), False), "named"]


def test_a_pipe_or_device_is_written_and_stays_what_it_is(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write_text(pipe, "table")
    assert os.read(reader, 100) == b"table"
    os.close(reader)
    assert pipe.is_fifo()


def test_json_has_null_where_a_number_is_not_finite():
    def refuse(constant):
        raise AssertionError(constant)

    text = files.json_text({"mean": math.nan, "interval": (-math.inf, 0.5), "inner": [{"loss": math.inf}]})
    read = json.loads(text, parse_constant=refuse)
    assert read == {"mean": None, "interval": [None, 0.5], "inner": [{"loss": None}]}
