"""A metric where lower is better: the mirrored records of a run say the same about who gains and which is better."""

import json
import shutil

import pandas as pd
import pytest

from analysis import compare_methods, metric, outcome, plot_all, style
from analysis import runs as runs_lib
from analysis.report import __main__ as page
from analysis.report import configurations, sections, tables
from tff_personalization import errors, metrics

ERROR_RATE = {"metric": "error rate", "higher_is_better": False, "largest_score": 1.0}
QUANTILES = {"05": "95", "10": "90", "25": "75", "50": "50", "75": "25", "90": "10", "95": "05"}


def mirror(directory, to):
    """The run, judged by the share of wrong answers: 1 less each accuracy, while gains and shares stay."""
    shutil.copytree(directory, to)
    config = json.loads((to / "config.json").read_text()) | ERROR_RATE | {"run_name": to.name}
    (to / "config.json").write_text(json.dumps(config))
    summary = json.loads((to / "summary.json").read_text())
    for kind in ("initial_accuracy", "personalized_accuracy"):
        summary[kind]["mean"] = 1 - summary[kind]["mean"]
    (to / "summary.json").write_text(json.dumps(summary))
    for path in to.glob("*.csv"):
        table = pd.read_csv(path)
        for column in table.columns.intersection(
            ["accuracy", "accuracy_mean", *map("{}_accuracy".format, style.LINES)]
        ):
            table[column] = 1 - table[column]
        mirrored = {
            f"accuracy_q{q}": 1 - table[f"accuracy_q{p}"] for q, p in QUANTILES.items() if f"accuracy_q{p}" in table
        }
        table.assign(**mirrored).to_csv(path, index=False)
    return to


@pytest.fixture
def pair(make_run, tmp_path):
    """Two runs, and the two mirrored."""
    made = [make_run(name, method=name, seed=1) for name in ("fed_avg", "reptile")]
    mirrored = [mirror(directory, tmp_path / f"mirrored_{directory.name}") for directory in made]
    return [[runs_lib.read(path) for path in paths] for paths in (made, mirrored)]


def test_gains_are_positive_where_the_metric_becomes_better(pair):
    (run, *_), (mirrored, *_) = pair
    ours, theirs = mirrored.client_gains(), run.client_gains()
    pd.testing.assert_series_equal(ours["gain"], theirs["gain"])
    assert ours["initial"].tolist() == pytest.approx(1 - theirs["initial"])
    assert (ours["gain"] > 0).any()


def test_the_sentence_says_that_it_was_lowered(pair):
    (run, *_), (mirrored, *_) = pair
    assert "raised mean accuracy from" in outcome.sentence(run)
    said = outcome.sentence(mirrored)
    assert "lowered mean error rate from" in said
    assert said.partition("(gain")[2] == outcome.sentence(run).partition("(gain")[2]


def test_the_comparison_says_the_same_of_each_row(pair):
    ours, theirs = (compare_methods.compare(runs) for runs in reversed(pair))
    for column in ("difference", "difference_low", "difference_high", "share_hurt"):
        pd.testing.assert_series_equal(ours[column], theirs[column])
    assert ours["judged"].tolist() == theirs["judged"].tolist()
    assert ours["worst_accuracy"].tolist() == pytest.approx(1 - theirs["worst_accuracy"])
    text = compare_methods.render(ours, "text")
    assert "positive is better" in " ".join(text.split())
    assert "mean of the highest 10% of personalized error rate" in " ".join(text.split())
    with pytest.raises(errors.UserError, match=r"'error rate' \(lower is better\)"):
        metric.of([run for runs in pair for run in runs])


def test_ranks_and_the_worst_tenth_are_the_same(pair):
    ours, theirs = (tables.ranking(configurations.of(runs)).tidy for runs in reversed(pair))
    for column in ("configuration", "rank_initial", "rank_personalized"):
        assert ours[column].tolist() == theirs[column].tolist()
    (run, *_), (mirrored, *_) = pair
    expected = 1 - configurations.per_run(run)["worst_tenth"]
    assert configurations.per_run(mirrored)["worst_tenth"] == pytest.approx(expected)


def test_plots_and_page_are_made_and_name_the_side_that_is_better(pair):
    mirrored = pair[1][0]
    assert plot_all.plot_run(mirrored.directory)
    text = page.write(mirrored.directory).read_text()
    assert "error rate" in text
    assert "{below}" not in text
    shown = [sections.show("client_scatter", configurations.of(runs)).figure.layout.meta for runs in pair]
    assert [(meta["metric"], meta["sign"]) for meta in shown] == [("accuracy", 1), ("error rate", -1)]
    captions = [sections.show("client_scatter", configurations.of(runs)).spec.caption for runs in pair]
    assert captions[0].startswith("Above the dotted line a client gains, below it is hurt.")
    assert captions[1].startswith("Below the dotted line a client gains, above it is hurt.")


@pytest.mark.parametrize(
    ("column", "value", "said"), [("accuracy", 2.5, "is not within 0 and 2"), ("accuracy", 0.5, "mean score")]
)
def test_values_that_cannot_be_are_refused(pair, column, value, said):
    _, (mirrored, *_) = pair
    config = json.loads((mirrored.directory / "config.json").read_text()) | {"largest_score": 2.0}
    (mirrored.directory / "config.json").write_text(json.dumps(config))
    path = mirrored.directory / "clients.csv"
    table = pd.read_csv(path)
    table = table.assign(correct=table["accuracy"] * table["test_examples"])
    table.loc[(table["test_examples"] > 0).idxmax(), column] = value
    table.to_csv(path, index=False)
    with pytest.raises(errors.UserError, match=said):
        _ = runs_lib.read(mirrored.directory).clients


@pytest.mark.parametrize("damage", [{"higher_is_better": "no"}, {"largest_score": "2"}, {"largest_score": -1}])
def test_a_damaged_config_is_one_line(pair, damage):
    path = pair[1][0].directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(errors.UserError, match="is damaged: restore"):
        _ = runs_lib.read(path.parent).metric


def test_gain_takes_numbers_and_arrays():
    lower = metrics.Metric("error", False, 3.0)
    assert (lower.gain(2.0, 1.5), metrics.ACCURACY.gain(0.5, 0.7)) == (0.5, pytest.approx(0.2))
    assert (lower.upper, metrics.ACCURACY.upper) == (3.0, 1.0)
