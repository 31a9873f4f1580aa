"""The runs with faults: their methods and data, the program that reports its moments, and its end."""

import collections
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

import numpy as np

from tests import processes
from tests.stress import moments

METHODS = {
    "personalized_fed_avg": ["--method=personalized_fed_avg", "--stage_2_round=21"],
    "scaffold": ["--method=scaffold"],
    "ifca": ["--method=ifca", "--clusters=2"],
    "fed_avg, faulty clients, chosen on validation clients": [
        *("--method=fed_avg", "--server_optimizer=adam"),
        *("--client_dropout_probability=0.3", "--straggler_probability=0.3"),
        *("--validation_clients=2", "--personalization_learning_rates=0.01,0.05", "--personalization_examples=1,all"),
    ],
}
_ROUNDS = 40
_SECONDS_TO_END = 15
_SECONDS_OF_A_RUN = 120


def write_archive(path: pathlib.Path) -> pathlib.Path:
    """Twelve made-up writers of four classes, in random pixels with a bar for the class."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 4, 360)
    images = rng.integers(0, 120, (360, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[5 * label : 5 * label + 4, 4:24] += 100
    np.savez(path, images=images, labels=labels, writer=rng.integers(0, 12, 360))
    return path


class Run:
    """A run that is resumed from start to start, its directory, and the marks of its process."""

    def __init__(self, place: pathlib.Path, archive: pathlib.Path, output_dir: pathlib.Path, name: str):
        arguments, self.directory = processes.command(archive, output_dir, "run", *METHODS[name])
        self._marks_path = place / "marks"
        program, settings = arguments[:2], [argument for argument in arguments[2:] if argument != "--noplots"]
        self._arguments = [
            program[0],
            "-m",
            "tests.stress.moments",
            str(self._marks_path),
            *settings,
            f"--rounds={_ROUNDS}",
        ]

    def start(self) -> subprocess.Popen:
        """The command, as a process whose marks are `marks`."""
        self._marks_path.unlink(missing_ok=True)
        self.marks = moments.Marks(self._marks_path)
        self.started = time.monotonic()
        return subprocess.Popen(
            self._arguments, cwd=processes.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @property
    def finished(self) -> bool:
        return (self.directory / "summary.json").exists()


def durations(run: Run) -> dict[str, list[float]]:
    """Runs to the end, without faults; how long each moment lasted each time, in seconds."""
    process, found = run.start(), collections.defaultdict(list)
    since, (count, now) = run.started, run.marks.read()
    while process.poll() is None:
        count_now, name = run.marks.read()
        if count_now != count:
            found[now].append(time.monotonic() - since)
            since, count, now = time.monotonic(), count_now, name
        time.sleep(0.0003)
    found[now].append(time.monotonic() - since)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return found


def stop_at(process: subprocess.Popen, run: Run, moment: str, others_before: int, delay: float) -> bool:
    """Stops the program `delay` seconds into a moment, after skipping some of them; False if it ended before."""
    seen = None
    while True:
        if process.poll() is not None:
            return False
        count, now = run.marks.read()
        if now == moment and count != seen:
            seen, others_before = count, others_before - 1
            if others_before < 0:
                break
        time.sleep(0.0003)
    time.sleep(delay)
    process.send_signal(signal.SIGSTOP)
    while process.poll() is None and not processes.is_stopped(process.pid):
        time.sleep(0.001)
    return process.poll() is None


def rounds_done(directory: pathlib.Path) -> int:
    """The rounds in metrics.csv."""
    try:
        return len((directory / "metrics.csv").read_text().splitlines()) - 1
    except FileNotFoundError:
        return 0


def newest_checkpoint(directory: pathlib.Path) -> int:
    """The round of the newest checkpoint that is whole."""
    return max(
        (int(path.stem.removeprefix("round_")) for path in directory.glob("checkpoints/round_*.json")), default=0
    )


def outcome(process: subprocess.Popen, run: Run, children: Iterable[int]) -> dict:
    """Waits for the end of a program after a fault: how it ended, and what it left."""
    try:
        output, _ = process.communicate(timeout=_SECONDS_OF_A_RUN)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)
        for _ in range(2):  # the first may be postponed
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
        try:
            output, _ = process.communicate(timeout=_SECONDS_TO_END)
            status: int | str = f"waits, then {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            status = "hung"
        print(output, file=sys.stderr)
        return {"ended": status, "traceback": False, "child_outlived": outlives(children)}
    # Python may say before or after it that it ignores an exception in a thread that had no memory.
    told = re.search(r"^(Exception ignored in.*)?Error: ", output.replace("\r", "\n"), re.MULTILINE) is not None
    status = process.returncode
    if "Traceback" in output or (status == 1 and not told):
        print(output, file=sys.stderr)
    return {
        "ended": status,
        "one_line": told if status == 1 else None,
        "traceback": "Traceback" in output,
        "rounds_done": rounds_done(run.directory),
        "rounds_again": rounds_done(run.directory) - newest_checkpoint(run.directory) if status else 0,
        "child_outlived": outlives(children),
    }


def outlives(children: Iterable[int]) -> bool:
    """Whether a child process is still there after a while."""
    deadline = time.monotonic() + _SECONDS_TO_END
    while any(processes.is_running(pid) for pid in children):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.1)
    return False


def same_numbers(directory: pathlib.Path, expected: pathlib.Path) -> bool:
    """Whether two runs have the same records, times aside."""
    try:
        processes.assert_same_numbers(directory, expected)
        return True
    except AssertionError as error:
        print(f"{directory}: {error}", file=sys.stderr)
        return False
