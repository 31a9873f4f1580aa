"""The watchdog takes only a process that waits for one that waits."""

import os
import subprocess
import sys
import threading
import time
import types

import pytest

from tff_personalization.execution import watchdog

# Both want one core, which the second one gets only if the first does not.
BUSY = "import os; os.sched_setaffinity(0, {{{core}}}); {first}\nwhile True: pass"


@pytest.fixture
def starved():
    """A process with work that hardly gets a processor."""
    core = min(os.sched_getaffinity(0))
    texts = ("", "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))")
    made = [subprocess.Popen([sys.executable, "-c", BUSY.format(core=core, first=first)]) for first in texts]
    time.sleep(0.5)  # until they have started
    yield made[1]
    for process in made:
        process.kill()
        process.wait()


def wanted(pid):
    return max(watchdog.seconds_wanted(pid).values())


def test_a_process_that_is_starved_wants_time_and_one_that_waits_does_not(starved):
    waiting = subprocess.Popen(["sleep", "60"])
    before = {process: wanted(process.pid) for process in (starved, waiting)}
    deadline = time.monotonic() + 60  # on a machine with other work, it may not run for long
    while wanted(starved.pid) < before[starved] + 0.4:  # The kernel adds a wait when it is over.
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert wanted(waiting.pid) < before[waiting] + 0.1
    waiting.kill()
    waiting.wait()


def watched(monkeypatch, seconds_wanted):
    """How often an idle process is killed in a second by a watchdog that allows 0.2 s."""
    for name, value in (("_POLL_SECONDS", 0.02), ("_STILL_SECONDS", 0.2), ("_IDLE", 100.0)):
        monkeypatch.setattr(watchdog, name, value)
    monkeypatch.setattr(watchdog, "seconds_wanted", seconds_wanted)
    kills, over = [], threading.Event()
    idle = types.SimpleNamespace(pid=os.getppid(), kill=lambda: kills.append(1))
    monkeypatch.setattr(watchdog, "_seconds", lambda process: 0.0)
    with watchdog.Watchdog(lambda: None if over.is_set() else idle).waiting():
        time.sleep(1)
    over.set()
    return len(kills)


def test_an_idle_process_is_killed_unless_this_one_is_starved(monkeypatch):
    assert watched(monkeypatch, lambda pid: {"1": 0.0}) > 0
    assert watched(monkeypatch, lambda pid: {"1": 0.0, "2": time.monotonic()}) == 0
