"""Cluster file systems: without locks, and with renames that become visible late."""

import errno
import fcntl
import os
import threading
import time

import pytest

from tff_personalization import errors
from tff_personalization.records import files, run_writer


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_without_locks_the_run_warns_and_continues(number, tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run_writer._locked(tmp_path) as file:
        assert not file.closed
    assert f"{tmp_path}: this file system has no locks ({os.strerror(number)})" in caplog.text


def test_with_locks_a_second_process_is_refused(tmp_path):
    with run_writer._locked(tmp_path), pytest.raises(errors.UserError, match=rf"another process \({os.getpid()}\)"):
        run_writer._locked(tmp_path)


def test_a_rename_that_is_seen_late_is_waited_for(tmp_path, monkeypatch):
    replace = os.replace

    def late(*arguments):
        threading.Timer(0.3, replace, arguments).start()

    monkeypatch.setattr(os, "replace", late)
    started = time.monotonic()
    files.write_text(tmp_path / "x.csv", "a\n1\n")
    assert time.monotonic() - started > 0.2
    assert (tmp_path / "x.csv").read_text() == "a\n1\n"


def test_one_that_is_never_seen_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_SECONDS_TO_BE_SEEN", 0.1)
    monkeypatch.setattr(os, "replace", lambda *_: None)
    with pytest.raises(OSError, match="No such file") as failed:
        files.write_text(tmp_path / "x.csv", "a\n1\n")
    assert failed.value.filename == str(tmp_path / "x.csv")
