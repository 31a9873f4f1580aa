"""The numbers behind the plots equal independent computations from the same records."""

import collections
import json
import shutil

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis import (
    accuracy_distributions,
    before_after,
    client_scatter,
    decomposition,
    gain_by_examples,
    k_shot,
    learning_curves,
    personalization_epochs,
    plot_all,
    style,
)
from analysis import runs as runs_lib
from tff_personalization.errors import UserError

KINDS = ("initial", "personalized")
PLOTS = (
    learning_curves,
    before_after,
    accuracy_distributions,
    client_scatter,
    gain_by_examples,
    personalization_epochs,
    k_shot,
    decomposition,
)


def _lines(axes, **properties):
    """The lines of `axes` with the given properties, as (x, y) arrays."""
    chosen = [line for line in axes.lines if properties.items() <= line.properties().items()]
    return [tuple(np.asarray(values, float) for values in line.get_data()) for line in chosen]


def _table(path):
    return pd.read_csv(path, float_precision="round_trip")


def _accuracies(directory, strategy="fine_tuning", epochs=5):
    table = _table(directory / "clients.csv")
    table = table[(table["strategy"] == strategy) & (table["test_examples"] > 0)].sort_values("client")
    return (table[table["epoch"] == epoch]["accuracy"].to_numpy() for epoch in (0, epochs))


def test_learning_curves_are_the_evaluated_rounds_of_each_run(make_run):
    directories = [make_run("a", seed=1), make_run("b", seed=2)]
    figure = learning_curves.plot(runs_lib.read_all(directories))
    (axes,) = figure.axes
    for directory, colour in zip(directories, style.COLOURS, strict=False):
        metrics = _table(directory / "metrics.csv")
        metrics = metrics[metrics["round"] % 5 == 0]
        for kind, line_style in (("initial", "--"), ("personalized", "-")):
            ((x, y),) = _lines(axes, color=colour, linestyle=line_style)
            np.testing.assert_array_equal(x, metrics["round"])
            np.testing.assert_array_equal(y, metrics[f"{kind}_accuracy"])


def test_learning_curves_mark_the_round_at_which_the_second_stage_begins(make_run):
    figure = learning_curves.plot([runs_lib.read(make_run(stages=(("fed_avg", 40), ("reptile", 10))))])
    (axes,) = figure.axes
    ((x, _),) = _lines(axes, linestyle="-.")
    assert list(x) == [40.5, 40.5]
    assert "Reptile from round 41" in [text.get_text() for text in axes.texts]


def test_a_run_of_one_stage_has_no_stage_mark(make_run):
    figure = learning_curves.plot([runs_lib.read(make_run(stages=(("fed_avg", 50),)))])
    assert not _lines(figure.axes[0], linestyle="-.")


def test_learning_curves_of_an_unfinished_run_can_be_drawn(make_run):
    figure = learning_curves.plot([runs_lib.read(make_run(finished=False))])
    assert "a fixed sample of test clients" in figure.get_suptitle()


def _without_rounds(directory):
    """Leaves a finished run as a method that does not train leaves it."""
    (directory / "metrics.csv").unlink()
    summary = json.loads((directory / "summary.json").read_text())
    (directory / "summary.json").write_text(json.dumps(summary | {"rounds": 0}))


def test_a_run_without_rounds_or_evaluations_has_no_learning_curves(make_run):
    never_evaluated, no_rounds = make_run("never_evaluated", stages=(("fed_avg", 3),)), make_run("no_rounds")
    _without_rounds(no_rounds)
    for directory, words in ((never_evaluated, "no round was evaluated"), (no_rounds, "no rounds")):
        with pytest.raises(runs_lib.NotRecordedError, match=words):
            learning_curves.plot([runs_lib.read(directory)])


@pytest.mark.parametrize("seed", range(5))
def test_the_histogram_of_client_records_equals_the_released_one(make_run, seed):
    directory = make_run(seed=seed)
    of_records = [accuracy_distributions.histogram(runs_lib.read(directory), kind) for kind in KINDS]
    (directory / "clients.csv").unlink()
    released = [accuracy_distributions.histogram(runs_lib.read(directory), kind) for kind in KINDS]
    for (edges, counts), (released_edges, released_counts) in zip(of_records, released, strict=True):
        np.testing.assert_array_equal(edges, released_edges)
        np.testing.assert_array_equal(counts, released_counts)
        assert counts.sum() == 68


def test_an_accuracy_a_rounding_error_below_the_edge_of_a_bin_falls_into_that_bin(make_run):
    directory = make_run()
    exact = accuracy_distributions.histogram(runs_lib.read(directory), "personalized")[1]
    table = _table(directory / "clients.csv")
    table["accuracy"] = np.nextafter(table["accuracy"], 0)
    table.to_csv(directory / "clients.csv", index=False)
    below = accuracy_distributions.histogram(runs_lib.read(directory), "personalized")[1]
    np.testing.assert_array_equal(below, exact)


def test_shares_of_the_update_are_stacked_to_one_and_cosines_are_those_recorded(make_run):
    directory = make_run()
    figure = decomposition.plot([runs_lib.read(directory)])
    shares, cosines = figure.axes
    table = _table(directory / "decomposition.csv")
    table = table[(table["level"] == "cohort") & (table["epochs"] == table["epochs"].max())]
    tops = [collection.get_paths()[0].vertices[:, 1].max() for collection in shares.collections]
    assert tops[-1] == pytest.approx(1)
    assert tops[0] == pytest.approx(table[table["part"] == 0]["share"].max())
    for part, (x, y) in enumerate(_lines(cosines)):
        rows = table[table["part"] == part]
        np.testing.assert_array_equal(x, rows["round"])
        np.testing.assert_array_equal(y, rows["cosine_with_fed_sgd"])


def test_a_run_that_was_not_decomposed_has_no_such_plot(make_run):
    directory = make_run()
    (directory / "decomposition.csv").unlink()
    with pytest.raises(runs_lib.NotRecordedError, match=r"tools\.decompose"):
        decomposition.plot([runs_lib.read(directory)])


def test_a_decomposition_without_rounds_is_refused(make_run):
    path = make_run() / "decomposition.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(runs_lib.NotRecordedError, match=r"decomposition\.csv: no rounds in it"):
        decomposition.plot([runs_lib.read(path.parent)])


@pytest.mark.parametrize("script", PLOTS[1:-1], ids=lambda module: module.__name__)
def test_plots_of_the_final_evaluation_say_how_to_finish_an_unfinished_run(make_run, script):
    with pytest.raises(UserError, match="unfinished run"):
        script.plot([runs_lib.read(make_run(finished=False))])


def test_each_client_is_drawn_before_and_after_in_order_of_initial_accuracy(make_run):
    directory = make_run()
    (axes,) = before_after.plot([runs_lib.read(directory)]).axes
    initial, personalized = _accuracies(directory)
    order = np.lexsort((personalized, initial))
    drawn = {tuple(marks.get_facecolor()[0][:3]): marks.get_offsets() for marks in axes.collections[2:]}
    for accuracies, colour in ((initial, style.BLUE), (personalized, style.VERMILLION)):
        offsets = drawn[matplotlib.colors.to_rgb(colour)]
        np.testing.assert_array_equal(offsets[:, 0], np.arange(1, 69))
        np.testing.assert_allclose(offsets[:, 1], accuracies[order])
    others, hurt = (np.array(lines.get_segments()) for lines in axes.collections[:2])
    assert (hurt[:, 1, 1] < hurt[:, 0, 1]).all()
    assert (others[:, 1, 1] >= others[:, 0, 1]).all()
    assert len(hurt) == (personalized < initial).sum()
    assert f"{(personalized > initial).sum()} of 68 clients gain" in axes.get_title()


def test_merged_bars_are_sums_of_neighbouring_bins():
    edges, counts = accuracy_distributions.merged(np.linspace(0, 1, 101), np.arange(100))
    np.testing.assert_allclose(edges, np.linspace(0, 1, 21), atol=1e-12)
    np.testing.assert_array_equal(counts, [sum(range(5 * i, 5 * i + 5)) for i in range(20)])


def test_the_cdf_rises_by_one_client_at_each_accuracy_and_the_verticals_are_the_means(make_run):
    directory = make_run()
    figure = accuracy_distributions.plot([runs_lib.read(directory)])
    for accuracies, look in zip(_accuracies(directory), (style.INITIAL, style.PERSONALIZED), strict=True):
        (x, y), (mean, _) = _lines(figure.axes[1], color=look["color"])
        for value in np.unique(accuracies):
            assert y[x == value].max() == pytest.approx((accuracies <= value).mean())
        np.testing.assert_allclose(mean, accuracies.mean())


def test_the_cdf_of_released_bins_is_their_running_sum(make_run):
    directory = make_run(release="aggregates")
    figure = accuracy_distributions.plot([runs_lib.read(directory)])
    table = _table(directory / "distribution.csv").query("strategy == 'fine_tuning' and epoch == 5")
    (x, y), _ = _lines(figure.axes[1], color=style.PERSONALIZED["color"])
    np.testing.assert_allclose(x[1:], table["bin_high"])
    np.testing.assert_allclose(y[1:], table["clients"].cumsum() / 68)


def test_the_scatter_holds_every_client_once_and_counts_those_that_gain(make_run):
    directory = make_run()
    figure = client_scatter.plot([runs_lib.read(directory)])
    before, after = _accuracies(directory)
    (axes,) = figure.axes
    one = min(area for points in axes.collections for area in points.properties()["sizes"])
    drawn: collections.Counter = collections.Counter()
    for points in axes.collections:
        for place, area in zip(np.asarray(points.get_offsets()), points.properties()["sizes"], strict=True):
            drawn[tuple(place)] += round(area / one)
    assert drawn == collections.Counter(zip(before, after, strict=True))
    shares = [(after > before).mean(), (after == before).mean(), (after < before).mean()]
    assert axes.get_title() == "n = 68: {:.0%} gaining, {:.0%} unchanged, {:.0%} hurt".format(*shares)


def test_gain_is_averaged_over_groups_of_similar_numbers_of_examples():
    gains = pd.DataFrame({"train_examples": np.arange(60, 0, -1), "gain": np.arange(60)[::-1] / 60})
    means = gain_by_examples.binned_gain(gains, bins=6)
    np.testing.assert_array_equal(means["clients"], [10] * 6)
    np.testing.assert_allclose(means["train_examples"], 5.5 + 10 * np.arange(6))
    np.testing.assert_allclose(means["gain"], (4.5 + 10 * np.arange(6)) / 60)
    # The standard deviation of 10 numbers in a row is sqrt((10² - 1) / 12 · 10 / 9).
    np.testing.assert_allclose(means["standard_error"], np.sqrt(99 / 12 * 10 / 9) / 60 / np.sqrt(10))


def test_clients_of_one_size_form_one_group():
    means = gain_by_examples.binned_gain(pd.DataFrame({"train_examples": [7] * 30, "gain": [0.1, 0.3] * 15}))
    assert means["clients"].tolist() == [30]
    assert means["gain"].tolist() == [pytest.approx(0.2)]


def test_gain_by_examples_draws_every_client(make_run):
    directory = make_run()
    before, after = _accuracies(directory)
    points = np.asarray(gain_by_examples.plot([runs_lib.read(directory)]).axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(np.sort(points[:, 1]), np.sort(after - before))


def test_personalization_epochs_are_the_means_over_clients_of_every_strategy(make_run):
    directory = make_run()
    figure = personalization_epochs.plot([runs_lib.read(directory)])
    table = _table(directory / "clients.csv").query("test_examples > 0")
    for strategy, colour in zip(("fine_tuning", "head_only", "local_only"), style.COLOURS[1:], strict=False):
        accuracy = table[table["strategy"] == strategy].groupby("epoch")["accuracy"]
        (mean, low, high) = (y for _, y in _lines(figure.axes[0], color=colour))
        np.testing.assert_allclose(mean, accuracy.mean())
        np.testing.assert_allclose(low, accuracy.quantile(0.25))
        np.testing.assert_allclose(high, accuracy.quantile(0.75))


def test_k_shot_is_the_mean_over_clients_after_the_last_epoch_by_number_of_examples(make_run):
    directory = make_run()
    (axes,) = k_shot.plot([runs_lib.read(directory)]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "5", "all"]
    table = _table(directory / "k_shot.csv").query("epoch == 5")
    for strategy, colour in zip(("fine_tuning", "head_only", "local_only"), style.COLOURS[1:], strict=False):
        ((x, y),) = _lines(axes, color=colour)
        np.testing.assert_array_equal(x, [0, 1, 2])
        np.testing.assert_allclose(y, table[table["strategy"] == strategy]["accuracy_mean"])


def test_a_run_with_one_number_of_examples_has_no_k_shot_plot(make_run):
    directory = make_run(examples=())
    with pytest.raises(runs_lib.NotRecordedError, match="--personalization_examples"):
        k_shot.plot([runs_lib.read(directory)])


@pytest.mark.parametrize("script", PLOTS, ids=lambda module: module.__name__)
def test_every_plot_says_task_method_and_that_the_data_is_synthetic(make_run, script):
    title = script.plot(runs_lib.read_all([make_run("a"), make_run("b", seed=2)])).get_suptitle()
    assert "62 characters" in title
    assert "Personalized FedAvg" in title
    assert "synthetic handwriting, 120 writers, heterogeneity 1" in title


def test_the_title_of_a_plot_of_many_methods_has_their_number(make_run):
    methods = ("fed_avg", "reptile", "scaffold", "maml", "fed_prox")
    runs = runs_lib.read_all([make_run(method, method=method) for method in methods])
    assert "\n5 methods · task: 62 characters" in before_after.plot(runs).get_suptitle()
    assert "method: FedAvg, Reptile, SCAFFOLD, MAML ·" in before_after.plot(runs[:4]).get_suptitle()


@pytest.mark.parametrize("script", PLOTS, ids=lambda module: module.__name__)
def test_no_text_is_cut_off_when_the_description_of_the_data_and_the_run_names_are_long(make_run, script):
    source = "synthetic handwriting, 120 writers, heterogeneity 1, " + "examples dealt to clients at random, " * 4
    runs = [make_run(f"personalized_fed_avg-handwriting-seed{seed}-ab12cd34", source=source) for seed in (1, 2, 3)]
    for figure in (script.plot(runs_lib.read_all(runs)), script.plot(runs_lib.read_all(runs[:1]))):
        FigureCanvasAgg(figure).draw()
        page, content = figure.bbox, figure.get_tightbbox().transformed(figure.dpi_scale_trans)
        assert page.x0 - 1 <= content.x0
        assert content.x1 <= page.x1 + 1
        assert page.y0 - 1 <= content.y0
        assert content.y1 <= page.y1 + 1


def test_a_plot_is_the_same_bytes_each_time_and_leaves_matplotlib_as_it_was(make_run, tmp_path):
    matplotlib.get_backend()  # matplotlib chooses its backend when first asked
    before = matplotlib.rcParams.copy()
    run = runs_lib.read(make_run())
    for suffix in ("png", "svg", "pdf"):
        first, second = (
            style.save(client_scatter.plot([run]), tmp_path / f"{n}.{suffix}").read_bytes() for n in range(2)
        )
        assert first == second
    assert matplotlib.rcParams == before


def test_plot_run_writes_every_plot_into_the_run_directory(make_run):
    directory = make_run()
    written = plot_all.plot_run(directory)
    assert [path.name for path in written] == [f"{module.__name__.rsplit('.')[-1]}.png" for module in PLOTS]
    assert all(path.parent == directory / "plots" and path.stat().st_size > 10_000 for path in written)


def test_plot_run_leaves_out_what_the_records_cannot_show(make_run):
    """Only aggregates, of a method that does not train, with one number of examples and without a decomposition."""
    directory = make_run(release="aggregates", examples=())
    _without_rounds(directory)
    (directory / "decomposition.csv").unlink()
    written = plot_all.plot_run(directory)
    assert [path.stem for path in written] == ["accuracy_distributions", "personalization_epochs"]
    shutil.rmtree(directory / "plots")
    (directory / "plots").touch()
    with pytest.raises(OSError, match=f"File exists: '{directory / 'plots'}'"):  # no flag names the place
        plot_all.plot_run(directory)
