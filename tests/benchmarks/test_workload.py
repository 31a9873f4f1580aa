"""The work of the benchmarks' contenders, and their protocol."""

import io
import json
import sys
import time

import numpy as np

from benchmarks import workload


def test_every_epoch_visits_every_example_of_every_client():
    assert workload.Workload().visits == 20 * 180 * 2
    assert workload.Workload(clients=3, examples=5, local_epochs=7).visits == 105


def test_a_cohort_is_the_same_at_every_call_and_differs_from_client_to_client():
    work = workload.Workload(clients=3, examples=40)
    first, again = work.cohort(), work.cohort()
    assert [(x.shape, x.dtype, y.shape, y.dtype) for x, y in first] == 3 * [((40, 28, 28), np.uint8, (40,), np.int32)]
    for (x, y), (x_again, y_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(y, y_again)
    assert (first[0][0] != first[1][0]).any()
    labels = np.concatenate([y for _, y in first])
    assert labels.min() >= 0
    assert labels.max() < workload.NUM_CLASSES


def test_a_contender_warms_up_and_then_does_a_round_for_each_line(monkeypatch, capsys):
    rounds = []

    def run_round():
        rounds.append(None)
        time.sleep(0.02)

    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n\n"))
    workload.serve(run_round, tool="1.2")
    ready, *answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ready == {"ready": {"tool": "1.2"}}
    assert len(answers) == 3
    assert len(rounds) == 2 + 3
    assert all(answer["seconds"] >= 0.02 for answer in answers)
