"""Evaluating kept models on test clients: it agrees with the run's own final evaluation; and what is refused."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from tests import forked
from tff_personalization import errors
from tff_personalization.programs import client_evaluation, final_evaluation
from tff_personalization.tools import judge_rounds


def test_the_last_round_is_judged_as_the_run_judged_it_and_earlier_rows_are_kept(run_once):
    directory = run_once(rounds_per_model=2, validation_clients=2)
    chosen = pd.read_csv(directory / "by_round.csv")
    table = judge_rounds.judge(directory, [2, 4])
    assert sorted(table["round"].unique()) == [2, 4]
    already = table[table["round"] == chosen["round"].iloc[0]].reset_index(drop=True)
    pd.testing.assert_frame_equal(already, chosen)
    of_run = pd.read_csv(directory / "clients.csv").query("strategy == 'fine_tune'")
    judged = table[table["round"] == 4]
    np.testing.assert_array_equal(judged["accuracy"], of_run["accuracy"])
    assert judged["client"].tolist() == of_run["client"].tolist()


def test_rounds_that_another_process_judges_meanwhile_are_kept(run_once, monkeypatch):
    directory = run_once(rounds_per_model=2, validation_clients=2)
    (directory / "by_round.csv").unlink()
    evaluate = client_evaluation.PersonalizationEvaluator.evaluate

    def of_two(evaluator, weights, clients, round_number, *rest, **settings):
        """Evaluates a round while another process writes a table with the round before and this one."""
        result = evaluate(evaluator, weights, clients, round_number, *rest, **settings)
        mine = final_evaluation.AtRound(round_number, result).clients_table("fine_tune")
        theirs = pd.concat([mine.assign(round=round_number - 1, loss=0.5), mine.assign(loss=0.25)])
        theirs.to_csv(directory / "by_round.csv", index=False)
        return result

    monkeypatch.setattr(client_evaluation.PersonalizationEvaluator, "evaluate", of_two)
    table = judge_rounds.judge(directory, [4])
    assert table.groupby("round")["loss"].unique().apply(list).to_dict() == {3: [0.5], 4: [0.25]}


def test_the_validation_chosen_round_leaves_its_clients(run_once):
    directory = run_once(rounds_per_model=2, validation_clients=2)
    table = pd.read_csv(directory / "by_round.csv")
    record = json.loads((directory / "summary.json").read_text())["validation_round"]
    assert set(table["round"]) == {record["round"]}
    for kind, epoch in (("initial", 0), ("personalized", 2)):
        mean = table[table["epoch"] == epoch]["accuracy"].mean()
        assert mean == pytest.approx(record[f"{kind}_accuracy"]["mean"])


def test_a_round_whose_model_was_not_kept_is_refused(run):
    directory = run()
    with pytest.raises(errors.UserError, match=r"no model of round 3, only of 4"):
        judge_rounds.judge(directory, [3])


@pytest.mark.parametrize("rounds", ["", "ten"])
def test_rounds_that_are_no_numbers_are_refused_in_one_line(rounds, tmp_path):
    command = [sys.executable, "-m", "tff_personalization.tools.judge_rounds", str(tmp_path), f"--rounds={rounds}"]
    done = forked.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"Error: --rounds={rounds}: give numbers of rounds, as in 10,20.\n"


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "ifca", "clusters": 2, "strategies": ["best_cluster"]},
        {"method": "meta_sgd", "local_epochs": None, "local_steps": 2, "strategies": ["meta_sgd"]},
    ],
    ids=lambda settings: settings["method"],
)
def test_models_with_more_weights_than_the_networks_own_are_judged_as_the_run_judged_them(run, settings):
    directory = run(rounds=1, rounds_per_evaluation=0, personalization_epochs=1, **settings)
    judged = judge_rounds.judge(directory, [1])
    of_run = pd.read_csv(directory / "clients.csv", float_precision="round_trip")
    for column in ("accuracy", "loss"):
        np.testing.assert_array_equal(judged[column], of_run[column])
