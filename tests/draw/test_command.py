"""The command: its messages without a run, and for runs that it cannot show."""

import contextlib
import dataclasses
import json
import pathlib
import sys
import types
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

from tff_personalization import errors, methods, plugins
from tff_personalization.draw import __main__ as draw
from tff_personalization.draw import personalizer, visitors
from tff_personalization.personalization import strategies
from tff_personalization.records import run_records

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "my_plugin.py"


@pytest.fixture
def main(monkeypatch, tmp_path):
    """The command in an empty directory, with its flags at their defaults."""
    monkeypatch.chdir(tmp_path)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["draw"])
    return lambda *arguments: draw.main(["draw", *arguments])


def test_without_a_run_it_says_how_to_get_one(main, tmp_path):
    with pytest.raises(errors.UserError, match=r"make run .*make draw FLAGS=--train"):
        main()
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "summary.json").write_text("{}")
    with pytest.raises(errors.UserError, match="make draw RUN=runs/mine"):
        main()


def test_a_run_and_train_are_one_too_many(main):
    with flagsaver.flagsaver(train=True), pytest.raises(errors.UserError, match="One run directory"):
        main("runs/mine")


def test_train_makes_the_quick_run_and_shows_it(main, monkeypatch):
    made, shown = [], []

    def run(experiment, interrupt):
        made.append(experiment.values)
        return types.SimpleNamespace(path=pathlib.Path("runs/quick"))

    def load(run, *choices):
        shown.append(run)
        raise errors.UserError("enough of it")

    monkeypatch.setattr(draw.training, "run", run)
    monkeypatch.setattr(draw.personalizer, "load", load)
    with flagsaver.flagsaver(train=True), pytest.raises(errors.UserError, match="enough of it"):
        main()
    expected = {"client_data": "handwriting", "num_clients": 120, "rounds": 45, "local_epochs": 2}
    assert {name: made[0][name] for name in expected} == expected
    assert shown == [pathlib.Path("runs/quick")]


def test_a_directory_without_a_run_is_refused(main, tmp_path):
    with pytest.raises(errors.UserError, match="not a run directory"):
        main(str(tmp_path))


def test_a_run_that_cannot_be_drawn_on_is_refused(finished_run):
    run = finished_run(model="linear", strategies="knn_per")
    with pytest.raises(errors.UserError, match="--strategy=ditto"):
        personalizer.load(run, strategy="ditto")
    with pytest.raises(errors.UserError, match="knn_per makes no model"):
        personalizer.load(run)
    with pytest.raises(errors.UserError, match=r"shakespeare has no characters to draw[^\n]*$"):
        personalizer.load(finished_run(client_data=None, task="shakespeare", test_clients=2))


@pytest.fixture
def _example_plugin():
    with contextlib.ExitStack() as stack:
        for registered in (methods.METHODS, strategies.STRATEGIES, plugins._loaded):
            stack.enter_context(mock.patch.dict(registered))
        plugins.load(["", f"--plugin={EXAMPLE}"])
        yield
    del sys.modules[EXAMPLE.stem]


@pytest.mark.usefixtures("_example_plugin")
def test_a_run_of_a_plugin_is_shown_if_its_strategy_gives_weights(finished_run, monkeypatch):
    settings = {"plugin": EXAMPLE, "method": "fed_prox_example", "strategies": "recentre", "example_share": 1.0}
    run = finished_run(model="linear", **settings)
    maker = personalizer.Personalizer(personalizer.load(run))
    adapted = maker.personalize(np.full((3, 28, 28), 99, np.uint8), np.arange(3), "writer")
    for ours, initial in zip(adapted, maker.initial, strict=True):
        np.testing.assert_allclose(ours, initial, atol=1e-5)  # after a full return to it
    recentre = strategies.STRATEGIES["recentre"]
    odd = dataclasses.replace(recentre, curve=lambda client, tuning: (tf.zeros(2), tf.zeros(2, tf.int32)))
    monkeypatch.setitem(strategies.STRATEGIES, "recentre", odd)
    with pytest.raises(errors.UserError, match="recentre has gives_weights=True, but its curve does not"):
        personalizer.Personalizer(personalizer.load(run)).warm_up()
    monkeypatch.setitem(strategies.STRATEGIES, "recentre", dataclasses.replace(recentre, gives_weights=False))
    with pytest.raises(
        errors.UserError, match=r"recentre makes no model .* \(see gives_weights in docs/extending\.md\)"
    ):
        personalizer.load(run)


def test_the_round_is_the_last_one_or_any_that_is_kept(finished_run):
    run = finished_run(model="linear")
    assert [personalizer.load(run, number).round_number for number in (None, 2)] == [4, 2]
    with pytest.raises(errors.UserError, match=r"no model of round 3, only of 2, 4"):
        personalizer.load(run, 3)


def test_the_held_out_writers_are_those_of_the_strategys_last_epoch(finished_run):
    of_sums = finished_run(model="linear", evaluation_release="aggregates")
    assert visitors.held_out_writers(run_records.read(of_sums), "fine_tune") is None
    directory = finished_run(model="linear", personalization_epochs=2)
    rows = [
        "client,strategy,epoch,accuracy,train_examples,test_examples",
        *("a,fine_tune,0,0.5,9,10", "a,fine_tune,1,0.9,9,10", "a,fine_tune,2,0.7,9,10"),
        *("b,fine_tune,0,0.4,9,10", "b,fine_tune,1,0.4,9,10", "b,fine_tune,2,0.3,9,10"),
        *("c,fine_tune,0,,9,0", "c,fine_tune,1,,9,0", "c,fine_tune,2,,9,0"),
        *("a,ditto,2,0.1,9,10", "b,ditto,2,0.5,9,10", "c,ditto,2,,9,0"),
    ]
    summary = json.loads((directory / "summary.json").read_text())
    (directory / "summary.json").write_text(json.dumps({**summary, "test_clients": 3}))
    (directory / "clients.csv").write_text("\n".join(rows) + "\n")
    writers = visitors.held_out_writers(run_records.read(directory), "fine_tune")
    assert writers["gain"].round(6).tolist() == [0.2, -0.1]
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "metric": "top-3 accuracy"}))
    assert visitors.held_out_writers(run_records.read(directory), "fine_tune") is None  # visitors have accuracies
    (directory / "config.json").write_text(json.dumps(config))
    assert [visitors.share_that_gains_less(writers, more, 5) for more in (-1, 0, 1, 2)] == [0, 0.5, 0.5, 1]
    assert visitors.share_that_gains_less(writers, -2, 20) == 0  # the size of b, with other numbers
    (directory / "clients.csv").write_text("client,epoch\n")
    with pytest.raises(errors.UserError, match=r"clients\.csv: no column"):
        visitors.held_out_writers(run_records.read(directory), "fine_tune")
