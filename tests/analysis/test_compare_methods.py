"""The table of methods: differences per client, their interval, the averages of a row."""

import csv
import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from analysis import accuracy_by_bytes, compare_methods, costs
from analysis import runs as runs_lib
from tff_personalization import metrics
from tff_personalization.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


def _accuracies(directory, strategy, epoch):
    table = pd.read_csv(directory / "clients.csv")
    table = table[(table["strategy"] == strategy) & (table["epoch"] == epoch) & (table["test_examples"] > 0)]
    return table.set_index("client")["accuracy"]


def test_worst_tenth_is_rounded_up_to_whole_clients():
    assert compare_methods.worst_mean(np.arange(11) / 10, metrics.ACCURACY) == pytest.approx(0.05)
    assert compare_methods.worst_mean(np.array([0.7]), metrics.ACCURACY) == 0.7


def test_rows_are_averages_over_seeds_of_what_the_clients_have(make_run):
    reference = [make_run(f"ref_{seed}", seed=seed, method="fed_avg") for seed in (1, 2)]
    other = [make_run(f"other_{seed}", seed=seed, method="reptile") for seed in (1, 2)]
    table = compare_methods.compare(runs_lib.read_all([*reference, *other]))
    assert table[["method", "strategy"]].to_numpy().tolist() == [
        [method, strategy]
        for method in ("fed_avg", "reptile")
        for strategy in ("fine_tuning", "head_only", "local_only")
    ]
    row = table.iloc[4]
    after = [_accuracies(directory, "head_only", 5) for directory in other]
    before = [_accuracies(directory, "head_only", 0) for directory in other]
    theirs = [_accuracies(directory, "fine_tuning", 5) for directory in reference]
    assert row["seeds"] == 2
    assert row["initial_accuracy"] == pytest.approx(np.mean([a.mean() for a in before]))
    assert row["personalized_accuracy"] == pytest.approx(np.mean([a.mean() for a in after]))
    assert row["personalized_accuracy_sd"] == pytest.approx(np.mean([a.std(ddof=0) for a in after]))
    assert row["difference"] == pytest.approx(np.mean([(a - b).mean() for a, b in zip(after, theirs, strict=True)]))
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["share_hurt"] == pytest.approx(np.mean([(a < b).mean() for a, b in zip(after, before, strict=True)]))
    assert row["worst_accuracy"] == pytest.approx(np.mean([a.nsmallest(7).mean() for a in after]))  # a tenth of 68
    assert (row["examples"], row["wall_seconds"]) == (100_000, 701.5)
    assert table["difference"][0] == 0
    assert table["difference_low"].isna().tolist() == [True] + 5 * [False]


def _judge_participants(directory, **means):
    path = directory / "summary.json"
    summary = json.loads(path.read_text())
    of = {name: {"personalized_accuracy": {"mean": mean}} for name, mean in means.items()}
    path.write_text(json.dumps(summary | {"participants": {"strategies": of}}))


def test_participants_are_in_the_row_of_the_main_strategy_with_it_and_with_their_own_models(make_run):
    reference = make_run("a", method="fed_avg")
    other = make_run("b", method="ditto")
    runs = [reference, other]
    assert "participants" not in compare_methods.render(compare_methods.compare(runs_lib.read_all(runs)), "text")
    _judge_participants(reference, fine_tuning=0.7)
    _judge_participants(other, fine_tuning=0.6, kept=0.8)
    table = compare_methods.compare(runs_lib.read_all(runs))
    first = table.groupby("method", sort=False)[["participants_accuracy", "kept_accuracy"]].first()
    assert first["participants_accuracy"].to_dict() == {"fed_avg": 0.7, "ditto": 0.6}
    assert first["kept_accuracy"].dropna().to_dict() == {"ditto": 0.8}
    assert table["participants_accuracy"].notna().sum() == 2
    shown = compare_methods.render(table, "text")
    assert all(column in shown for column in ("participants", "own model"))


def _record_costs(directory, extra, stages):
    """As a run of this version does; `stages` has the bytes down, up and kept of a client in a round."""
    metrics = pd.read_csv(directory / "metrics.csv").assign(extra_examples=extra)
    metrics.to_csv(directory / "metrics.csv", index=False)
    clients = metrics.groupby("stage")["clients"].sum()
    totals = {
        way: sum(int(clients[name]) * stage[place] for name, stage in stages.items())
        for place, way in enumerate(("down", "up"))
    }
    of_stages = {name: dict(zip(("down", "up", "kept"), stage, strict=True)) for name, stage in stages.items()}
    path = directory / "summary.json"
    summary = json.loads(path.read_text()) | {"communication": {"stages": of_stages, **totals}}
    path.write_text(json.dumps(summary))


def test_costs_are_those_on_record_and_missing_where_a_seed_has_none(make_run):
    with_costs, without, cut = make_run("a", method="fed_avg"), make_run("b", method="reptile"), make_run("c", seed=2)
    assert "kept" not in compare_methods.render(compare_methods.compare(runs_lib.read_all([with_costs])), "text")
    stages = {"fed_avg": (1_000_000, 2_000_000, 0), "reptile": (3_000_000, 2_000_000, 500_000)}  # 80 and 20 rounds
    _record_costs(with_costs, 50, stages)
    table = compare_methods.compare(runs_lib.read_all([with_costs, without]))
    row = table.iloc[0]
    assert row["visits"] == 100 * (1000 + 50)
    assert (row["bytes_down"], row["bytes_up"], row["bytes_kept"]) == (1_400_000, 2_000_000, 500_000)
    assert row["bytes_sent"] == 100 * 10 * 3_400_000  # of ten clients a round
    assert table[table["method"] == "reptile"][["visits", "bytes_down", "bytes_kept"]].isna().all(axis=None)
    text = compare_methods.render(table, "markdown")
    assert "| 0.10 M | 0.10 M | 1.40 MB | 2.00 MB | 0.50 MB |" in text
    assert "| 0.10 M | – | – | – | – |" in text
    # A run resumed by this version counts no visits of its first rounds.
    _record_costs(cut, [np.nan, *99 * [50]], stages)
    (first,) = runs_lib.read_all([cut])
    assert np.isnan(costs.of(first)["visits"])
    assert costs.of(first)["bytes_up"] == 2_000_000
    _record_costs(cut, -1, stages)
    with pytest.raises(UserError, match="'extra_examples', line 2: -1 is not a number of something"):
        costs.of(runs_lib.read(cut))


def test_bytes_of_unknown_size_are_missing_and_damaged_ones_are_refused(make_run):
    directory = make_run("a", method="fed_avg")
    _record_costs(directory, 0, {"fed_avg": (1, 2, 3), "reptile": (1, 2, 3)})
    path = directory / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"communication": summary["communication"] | {"down": None}}))
    found = costs.of(runs_lib.read(directory))
    assert np.isnan(found["bytes_down"])
    assert np.isnan(found["bytes_sent"])
    assert (found["bytes_up"], found["bytes_kept"]) == (2, 3)
    path.write_text(json.dumps(summary | {"communication": [1]}))
    with pytest.raises(UserError, match="its communication is damaged"):
        costs.of(runs_lib.read(directory))


def test_accuracy_is_drawn_by_the_bytes_of_each_method(make_run):
    runs = [make_run("a", method="fed_avg"), make_run("b", method="scaffold"), make_run("c", method="reptile")]
    with pytest.raises(runs_lib.NotRecordedError, match="no bytes on record"):
        accuracy_by_bytes.plot(runs_lib.read_all(runs))
    for run, megabytes in zip(runs[:2], (5, 10), strict=True):
        _record_costs(run, 0, dict.fromkeys(("fed_avg", "reptile"), (megabytes * 10**6, megabytes * 10**6, 0)))
    _judge_participants(runs[1], fine_tuning=0.6, kept=0.8)
    figure = accuracy_by_bytes.plot(runs_lib.read_all(runs[::-1]))  # whatever run is named first
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["FedAvg · 10 GB", "SCAFFOLD · 20 GB"]
    test_clients, participants, line = axes.lines
    assert test_clients.get_ydata().tolist() == [0, 1]  # GB: 1,000 times both ways
    assert participants.get_xdata()[1] == 0.6
    assert line.get_ydata() == [0.5, 0.5]  # between the groups


def test_a_strategy_on_the_references_models_keeps_its_own_variance_whatever_seeds_it_has(make_run):
    """The strategy of seeds 2 to 4, and methods that vary over seeds, as it does not."""
    directories = []
    for method, spread in (("fed_avg", 0), ("scaffold", 0.1), ("maml", 0.1), ("reptile", 0.1)):
        for seed in (1, 2, 3, 4):
            strategies = ["fine_tuning", "head"] if method == "fed_avg" and seed > 1 else ["fine_tuning"]
            directory = make_run(f"{method}_{seed}", seed=seed, method=method, strategies=strategies)
            table = pd.read_csv(directory / "clients.csv")
            table["accuracy"] = 0.4 + 0.2 * table["accuracy"] + spread * (seed - 2) * table["epoch"] / 5
            table.to_csv(directory / "clients.csv", index=False)
            directories.append(directory)
    table = compare_methods.compare(runs_lib.read_all(directories)).set_index(["method", "strategy"])
    (row,) = table[table["judged"] != compare_methods.REFERENCE].loc["fed_avg"].to_dict("records")
    assert row["which_seeds"] == "2, 3, 4"
    assert row["difference_high"] - row["difference_low"] < 0.1


def test_labels_of_rows_have_what_differs_between_rows_of_a_method():
    table = pd.DataFrame(
        [
            ("fed_avg", "", "", "fine_tune"),
            ("fed_avg", "", "", "ditto"),
            ("fed_avg", "cnn_group_norm", "--local_steps=5", "fine_tune"),
            ("reptile", "", "--server_optimizer=adam --local_steps=10", "fine_tune"),
            ("reptile", "", "--local_steps=5", "fine_tune"),
            ("maml", "", "--local_steps=5", "fine_tune"),
        ],
        columns=["method", "network", "settings", "strategy"],
    )
    assert compare_methods.row_labels(table) == [
        "FedAvg · fine-tuning",
        "FedAvg · Ditto, personal step",
        "FedAvg, group normalization",
        "Reptile --server_optimizer=adam --local…",
        "Reptile --local_steps=5",
        "MAML",
    ]


def test_a_row_names_its_network_if_it_is_not_the_reference_s(make_run):
    runs = [make_run(network, flags={"model": network}, given={"model": network}) for network in ("cnn", "mine")]
    table = compare_methods.compare(runs_lib.read_all(runs))
    assert table[["network", "settings"]].to_numpy().tolist()[-1] == ["mine", ""]
    assert "| Personalized FedAvg, mine |" in compare_methods.render(table, "markdown")


def test_a_row_has_the_default_of_a_flag_that_only_the_reference_was_given(make_run):
    def made(name, momentum, method="fed_avg", **given):
        server = {"name": "sgd", "learning_rate": 1.0, "options": {"momentum": momentum}}
        return make_run(name, method=method, flags={"optimizers": {"server": server}, "clients": 5}, given=given)

    reference = made("a", 0.0, server_sgd_momentum=0.0, clients=5)
    runs = [reference, made("b", 0.9), made("c", 0.5, server_sgd_momentum=0.5), made("d", 0.9, method="reptile")]
    table = compare_methods.compare(runs_lib.read_all(runs))
    settings = table.drop_duplicates(["method", "settings"])["settings"].tolist()
    assert settings == ["", "--server_sgd_momentum=0.9", "--server_sgd_momentum=0.5", ""]
    assert len(set(compare_methods.row_labels(table))) == len(table)


def test_runs_of_another_method_that_differ_in_a_flag_of_the_reference_have_rows_that_say_so(make_run):
    cohort = {"clients_per_round": 5}
    reference, same = (make_run(name, method=name, flags=cohort, given=cohort) for name in ("fed_avg", "reptile"))
    by_default = make_run("default", method="reptile", flags={"clients_per_round": 20})
    runs = [reference, same, by_default]
    table = compare_methods.compare(runs_lib.read_all(runs)).drop_duplicates(["method", "settings"])
    assert table["settings"].tolist() == ["", "--clients_per_round=5", "--clients_per_round=20"]
    assert compare_methods.row_labels(table)[1:] == ["Reptile --clients_per_round=5", "Reptile --clients_per_round=20"]
    for run in runs:
        _record_costs(run, 0, dict.fromkeys(("fed_avg", "reptile"), (1, 1, 0)))
    assert len(accuracy_by_bytes.plot(runs_lib.read_all(runs)).axes[0].get_yticklabels()) == 3


def test_clients_are_matched_by_name(make_run):
    reference, other = make_run("a", method="fed_avg"), make_run("b", method="reptile")
    # The same accuracies of the same clients, in another order.
    table = pd.read_csv(reference / "clients.csv")
    table.iloc[::-1].to_csv(other / "clients.csv", index=False)
    compared = compare_methods.compare(runs_lib.read_all([reference, other]))
    row = compared[compared["method"] == "reptile"].iloc[0]
    assert row[["difference", "difference_low", "difference_high"]].tolist() == pytest.approx([0, 0, 0], abs=1e-12)


def test_a_strategy_is_judged_over_the_seeds_that_have_it(make_run):
    directories = [
        make_run(f"ref_{seed}", seed=seed, method="fed_avg", strategies=names, flags={"strategies": list(names)})
        for seed, names in ((1, ("fine_tuning", "head_only")), (2, ("fine_tuning",)))
    ]
    table = compare_methods.compare(runs_lib.read_all(directories))
    assert table[["strategy", "seeds", "which_seeds"]].to_numpy().tolist() == [
        ["fine_tuning", 2, "1, 2"],
        ["fine_tuning", 1, "1"],  # the reference for head_only
        ["head_only", 1, "1"],
    ]
    assert table["difference_low"].isna().tolist() == [True, True, False]
    after = {name: _accuracies(directories[0], name, 5) for name in ("fine_tuning", "head_only")}
    assert table["difference"][2] == pytest.approx((after["head_only"] - after["fine_tuning"]).mean())
    assert table["personalized_accuracy"][1] == pytest.approx(after["fine_tuning"].mean())
    assert table["difference"][2] == pytest.approx(table["personalized_accuracy"].diff()[2])


def test_the_reference_may_stand_anywhere(make_run):
    runs = [make_run("a", method="centralized"), make_run("b", method="fed_avg")]
    command = [sys.executable, "-m", "analysis.compare_methods", *map(str, runs), "--format=csv"]
    for reference, first in (([], "centralized"), ([f"--reference={runs[1]}/"], "fed_avg")):
        output = subprocess.run([*command, *reference], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        assert next(csv.DictReader(io.StringIO(output)))["method"] == first


def test_formats(make_run):
    runs = runs_lib.read_all(
        [make_run("a", method="fed_avg"), make_run("b", method="reptile", given={"local_steps": 10})]
    )
    table = compare_methods.compare(runs)
    rows = list(csv.DictReader(io.StringIO(compare_methods.render(table, "csv"))))
    assert [float(row["difference"]) for row in rows] == table["difference"].tolist()
    for form in ("text", "markdown", "latex"):
        content = compare_methods.render(table, form)
        assert "reference" in content
        assert f"{table['difference'][3]:+.3f} [{table['difference_low'][3]:+.3f}, " in content
    assert "--local_steps=10" in compare_methods.render(table, "markdown")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 2, "method": "reptile"}, "the reference has no run with seed 2"),
        ({"method": "reptile", "clients": 60}, "other test clients"),
        ({"method": "fed_avg"}, "the same settings and seed"),
        ({"method": "reptile", "release": "aggregates"}, "no clients.csv"),
    ],
)
def test_what_cannot_be_compared_is_refused(make_run, other, message):
    runs = runs_lib.read_all([make_run("a", method="fed_avg"), make_run("b", **other)])
    with pytest.raises(UserError, match=message):
        compare_methods.compare(runs)


def test_runs_of_several_tasks_are_not_compared(make_run):
    directories = [make_run("a", method="fed_avg"), make_run("b", method="reptile")]
    path = directories[1] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task": "emnist10"}))
    with pytest.raises(UserError, match=r"b: another task than .*a; give runs of one task"):
        compare_methods.compare(runs_lib.read_all(directories))
