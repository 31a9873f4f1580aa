"""The latency of the drawing page, measured on a small model."""

import threading

from benchmarks import draw_latency
from tests.draw import conftest
from tff_personalization.draw import personalizer, server


def test_each_correction_is_a_row_with_what_the_model_then_has_learnt_from():
    maker = personalizer.Personalizer(conftest.trained_model("--model=linear"))
    served = server.Server(server.Pages(maker, None, {}, most_visitors=1, most_examples=10), 0)
    thread = threading.Thread(target=served.serve)
    thread.start()
    try:
        rows = list(draw_latency.over_http(served.url, list("0O0O0")))
    finally:
        served.stop()
        thread.join(10)
    assert [row["train_examples"] for row in rows] == [1, 2, 2, 2, 3]
    assert [row["held_back"] for row in rows] == [False, False, True, True, False]
    assert all(0 < row["milliseconds"] < 60_000 for row in rows)
