"""The parts of a round add up to it, and each measures what it says."""

import asyncio
import time

import pytest

from benchmarks import profile_round, workload


def test_a_moment_counts_for_the_innermost_part():
    clock = profile_round.Clock()

    async def inner():
        time.sleep(0.02)

    started = time.perf_counter()
    with clock.part("outer"):
        time.sleep(0.01)
        asyncio.run(clock.timed_coroutine("inner", inner)())
        clock.timed("inner", time.sleep)(0.03)
    elapsed = time.perf_counter() - started
    assert 0.06 <= sum(clock.seconds.values()) <= elapsed
    assert 0.05 <= clock.seconds["inner"] <= elapsed - 0.01
    assert clock.seconds["outer"] >= 0.01


def test_a_part_that_fails_is_over():
    clock = profile_round.Clock()
    with pytest.raises(ValueError, match="wrong"), clock.part("outer"), clock.part("inner"):
        raise ValueError("wrong")
    with clock.part("next"):
        time.sleep(0.01)
    assert clock.seconds["next"] >= 0.01
    assert clock.seconds["inner"] < 0.01


def test_the_computing_is_divided_by_the_shorter_computations():
    def repetition(computing, result=0.0):
        seconds = {"client data": 0.01, "serialization": 0.02, "sending": 0.03, "result": result}
        return {**seconds, "computing": computing, "the rest in Python": 0.04}

    table = profile_round.parts_of_round(
        {
            "whole": [repetition(9.0), repetition(2.0, 0.1), repetition(1.0)],  # the second is the median
            "still": [repetition(0.5), repetition(0.6), repetition(9.0)],
            "clients": [repetition(0.3)],
            "echo": [repetition(0.05)],
        }
    )
    milliseconds = dict(zip(table["part"], table["milliseconds"], strict=True))
    assert milliseconds == pytest.approx(
        {
            "client data": 10,
            "serialization": 20,
            "sending": 30,
            "start of clients": 300,
            "local steps": 1400,
            "mean of deltas, server step": 250,
            "result": 150,
            "the rest in Python": 40,
        }
    )
    assert table["milliseconds"].sum() == pytest.approx(2200)
    assert table["share"].sum() == pytest.approx(1, abs=1e-3)


def test_a_small_round_is_divided_into_its_parts():
    measured = profile_round.measure(workload.Workload(clients=2, examples=20, local_epochs=1), repetitions=1)
    assert {name: len(rounds) for name, rounds in measured.items()} == dict.fromkeys(
        ("whole", "still", "clients", "echo"), 1
    )
    for (seconds,) in measured.values():
        assert all(seconds[part] > 0 for part in ("client data", "serialization", "sending", "computing", "result"))
    table = profile_round.parts_of_round(measured)
    (whole,) = measured["whole"]
    assert tuple(table["part"]) == profile_round.PARTS
    assert table["milliseconds"].sum() == pytest.approx(1000 * sum(whole.values()), abs=0.1)
