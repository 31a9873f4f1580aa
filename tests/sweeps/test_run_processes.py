"""Runs as processes: several at once, their output, their end."""

import signal
import sys
import time
import types

import pytest

from tests import processes as helpers
from tff_personalization.sweeps import run_processes


def command(text):
    return [sys.executable, "-c", text]


def test_runs_start_while_there_is_room_and_the_first_to_end_is_reported_first(tmp_path):
    processes, may_end = run_processes.RunProcesses[str](2), tmp_path / "may end"
    waits = f"import os, time\nwhile not os.path.exists({str(may_end)!r}): time.sleep(0.02)"
    processes.start("slow", command(waits), "slow")
    assert not processes.full
    processes.start("fast", command(""), "fast")
    assert processes.full
    assert processes.running == ["slow", "fast"]
    fast = processes.wait()
    assert fast.key == "fast"
    may_end.touch()
    ended = processes.wait()
    assert (ended.key, ended.error) == ("slow", "")
    assert 0 < fast.seconds < ended.seconds < 60
    assert not processes.running


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import sys; sys.exit('first\\nError: --rounds=x: give a number.')", "Error: --rounds=x: give a number."),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
    ],
)
def test_why_one_failed(text, error):
    processes = run_processes.RunProcesses[int](1)
    processes.start(1, command(text), "")
    assert processes.wait().error == error


def test_one_is_shown_as_it_speaks_and_several_by_their_newest_lines(capsys, monkeypatch):
    speaks = command("import sys; sys.stderr.write('\\r1/3\\r2/3'); sys.stderr.flush()")
    one = run_processes.RunProcesses[int](1)
    one.start(1, speaks, "[1/2]")
    one.wait()
    assert capsys.readouterr().err == "\r1/3\r2/3"
    monkeypatch.setattr(run_processes, "_SECONDS_BETWEEN_LINES", 0)
    two = run_processes.RunProcesses[int](2)
    two.start(1, speaks, "[1/2]")
    two.wait()
    assert capsys.readouterr().err == "[1/2] 2/3\n"


def test_a_process_is_heard_to_its_end_where_nothing_can_be_shown(monkeypatch):
    def broken(*_):
        raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(write=broken, flush=broken))
    processes = run_processes.RunProcesses[int](1)
    text = "import signal, sys; signal.alarm(30); sys.stderr.write('x' * 1_000_000); sys.exit('\\nError: the last')"
    processes.start(1, command(text), "")  # It writes more than a pipe holds, so it ends only if it is read.
    assert processes.wait().error == "Error: the last"


def test_interrupted_all_of_them_end_and_say_nothing_more(tmp_path, capsys):
    ready = tmp_path / "ready"  # a file, because capsys can lose what another thread writes while it is read
    text = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n    print('saved', file=sys.stderr); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, end)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "for _ in range(600):\n    time.sleep(0.1)"  # a signal just before one long sleep would wait for its end
    )
    processes = run_processes.RunProcesses[int](1)
    processes.start(1, command(text), "")
    started = time.monotonic()
    while not ready.exists():
        time.sleep(0.01)
        assert time.monotonic() < started + 30
    pids = [process.pid for _, process, _ in processes._running.values()]
    processes.interrupt(signal.SIGINT)
    assert time.monotonic() < started + 30
    helpers.assert_all_end(pids)
    assert "saved" not in capsys.readouterr().err
