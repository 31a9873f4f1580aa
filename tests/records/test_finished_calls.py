"""A run that was stopped in its final evaluation resumes there. It ends with the numbers of a run that was not."""

import numpy as np
import pytest

from tests import processes
from tff_personalization.records import finished_calls

SETTINGS = {
    "clients_per_call": 2,
    "rounds": 2,
    "rounds_per_evaluation": 1,
    "validation_clients": 3,
    "personalization_examples": ("5", "all"),
    "personalization_learning_rates": ("0.02", "0.05"),
}
RUNS = {
    "fine-tuning": {},
    "sums of clients": {"evaluation_release": "aggregates"},
    "models that participants keep": {"method": "ditto", "strategies": ("fine_tune",)},
}


@pytest.fixture
def computed(monkeypatch):
    """Records the inputs of the calls that are made, and stops the run before the call with the number `stop_at`."""
    calls, results = [], finished_calls.FinishedCalls.results

    def counting(self, compute, weights, inputs):
        def noting():
            if len(calls) == counting.stop_at:
                raise KeyboardInterrupt
            calls.append(inputs)
            return compute()

        return results(self, noting, weights, inputs)

    counting.stop_at = None
    monkeypatch.setattr(finished_calls.FinishedCalls, "results", counting)
    return calls, counting


@pytest.mark.parametrize("kind", RUNS)
def test_finished_calls_are_not_made_again_and_no_number_changes(run, run_once, computed, kind):
    calls, counting = computed
    settings = SETTINGS | RUNS[kind]
    whole = run_once(**settings, run_name="whole")
    all_calls, interrupted = list(calls), {**settings, "run_name": "interrupted"}
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in interrupted.items()}
    calls.clear()
    for stop_at in (1, len(all_calls) // 2, len(all_calls) - 1):
        counting.stop_at = stop_at
        with pytest.raises(KeyboardInterrupt):
            run(**listed)
    counting.stop_at = None
    directory = run(**listed)
    assert calls == all_calls
    processes.assert_same_numbers(directory, whole)
    assert not (directory / "final_evaluation").exists()


def test_a_call_is_made_again_if_its_file_is_damaged_or_its_model_inputs_or_code_are_others(tmp_path, caplog):
    weights = [np.arange(6.0).reshape(2, 3)]
    made = []

    def compute():
        made.append(None)
        return [{"index": np.int32(place), "correct": np.full((1, 2), place)} for place in (4, 3)]

    def count(code="code", weights=weights, inputs=("a", 1)):
        before = len(made)
        found = finished_calls.FinishedCalls(tmp_path / "calls", code).results(compute, weights, inputs)
        assert [int(one["index"]) for one in found] == [4, 3]
        assert [one["correct"].tolist() for one in found] == [[[4, 4]], [[3, 3]]]
        return len(made) - before

    assert (count(), count()) == (1, 0)
    assert count(code="other") == count(weights=[weights[0] + 1]) == count(inputs=("a", 2)) == 1
    assert count() == 0
    for file in (tmp_path / "calls").iterdir():
        file.write_bytes(file.read_bytes()[:-30])
    assert (count(), count()) == (1, 0)
    assert "is damaged: its clients are evaluated again" in caplog.text
