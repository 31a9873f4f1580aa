"""The sentence at the end of a run agrees with its records."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis import names, outcome
from analysis import runs as runs_lib
from tff_personalization import methods
from tff_personalization.personalization import strategies


def test_the_sentence_has_means_interval_and_counts_of_the_records(make_run):
    directory = make_run(strategies=("fine_tune",))
    run = runs_lib.read(directory)
    table = pd.read_csv(directory / "clients.csv").query("test_examples > 0")
    before, after = (table[table["epoch"] == epoch].set_index("client")["accuracy"] for epoch in (0, 5))
    gain = after - before
    low, high = outcome.gain_interval(run)
    margin = 1.96 * gain.std(ddof=0) / np.sqrt(len(gain))
    assert (low, high) == pytest.approx((gain.mean() - margin, gain.mean() + margin), abs=0.15 * margin)
    assert outcome.sentence(run) == (
        "Fine-tuning on each client's own examples raised mean accuracy "
        f"from {before.mean():.2f} to {after.mean():.2f} "
        f"(gain {gain.mean():+.3f}, 95 % interval {low:+.3f} to {high:+.3f}); {(gain > 0).sum()} of 68 clients gained, "
        f"{(gain < 0).sum()} were hurt."
    )


def test_the_name_of_a_plugins_strategy_stays_as_it_is(make_run):
    run = runs_lib.read(make_run(strategies=("l2_sp",)))
    assert outcome.sentence(run).startswith("The strategy l2_sp on each client's own examples ")


def test_of_aggregates_the_interval_is_that_of_mean_and_deviation(make_run):
    run = runs_lib.read(make_run(release="aggregates"))
    gain = run.summary["gain"]
    low, high = outcome.gain_interval(run)
    assert (low + high) / 2 == pytest.approx(gain["mean"])
    assert high - low == pytest.approx(2 * 1.96 * gain["sd"] / np.sqrt(68))


@pytest.mark.parametrize("release", ["records", "aggregates"])
def test_one_client_has_no_interval(make_run, release):
    run = runs_lib.read(make_run(clients=1, without_test_data=0, release=release))
    gain, gained, hurt = (run.summary[name] for name in ("gain", "share_gaining", "share_hurt"))
    words = (
        f" (gain {gain['mean']:+.3f}); {gained:.0f} of 1 client gained, {hurt:.0f} {'was' if hurt else 'were'} hurt."
    )
    assert outcome.sentence(run).endswith(words)


@pytest.mark.parametrize(("after", "words"), [(0.5, "lowered mean accuracy from 0.75 to 0.50"), (0.75, "left mean")])
def test_a_loss_is_called_a_loss(make_run, after, words):
    directory = make_run(release="aggregates")
    summary = json.loads((directory / "summary.json").read_text())
    summary["initial_accuracy"]["mean"], summary["personalized_accuracy"]["mean"] = 0.75, after
    (directory / "summary.json").write_text(json.dumps(summary))
    assert words in outcome.sentence(runs_lib.read(directory))


def test_every_method_and_strategy_has_a_name_for_pictures():
    assert set(names.METHODS) == set(methods.METHODS)
    assert set(names.STRATEGIES) == set(strategies.STRATEGIES)
    assert names.method("my_plugin") == "my_plugin"
