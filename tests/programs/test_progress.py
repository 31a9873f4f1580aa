"""The progress line: alive from the first second, few lines without a terminal."""

import io
import time

import pytest

from tff_personalization.programs import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_line_says_what_is_done_how_far_it_is_and_how_long_it_takes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    line = progress.Line("starting", io.StringIO())
    now[0] += 65
    line.step("FedAvg", total=10, done=4, unit="round")
    assert line.text() == "FedAvg: 4 of 10 rounds · 1:05"
    now[0] += 20
    line.update(2, note="412 examples/s")
    assert line.text() == "FedAvg: 6 of 10 rounds · 1:25 · about 0:40 left · 412 examples/s"
    now[0] += 5
    assert "1:30 · about 0:35 left" in line.text(), "between two units the time left runs down"
    now[0] += 3595
    line.step("writing")
    assert line.text() == "writing · 1:01:25"


def test_it_is_written_while_nothing_else_happens_and_ends_with_where_it_was():
    stream = io.StringIO()
    with progress.Line("starting", stream, seconds=0.02) as line:
        line.step("building FedAvg")
        time.sleep(0.2)
        line.step("final evaluation", total=2, unit="client")
        line.update(2)
    written = stream.getvalue().splitlines()
    assert "building FedAvg · 0:00" in written
    assert written[-1] == "final evaluation: 2 of 2 clients · 0:00"


def test_what_is_refused_at_once_leaves_no_line():
    stream = io.StringIO()
    with pytest.raises(ValueError, match="refused"), progress.Line("starting", stream):
        raise ValueError("refused")
    assert stream.getvalue() == ""


def test_a_terminal_is_written_in_place_and_its_loss_does_not_end_the_run():
    stream = Terminal()
    with progress.Line("starting", stream) as line:
        line.step("round 1")
    assert stream.getvalue().count("\n") == 1
    assert "\r\x1b[2Kround 1 · 0:00" in stream.getvalue()
    stream.close()
    with progress.Line("starting", Terminal()) as line:
        line._stream.close()
        line.step("round 2")


def test_accuracies_are_shown_with_their_change():
    assert progress.accuracies(0.5, 0.75, None) == "initial 0.500, personalized 0.750"
    assert progress.accuracies(0.6, 0.7, (0.5, 0.75)) == "initial 0.600 (+0.100), personalized 0.700 (-0.050)"
