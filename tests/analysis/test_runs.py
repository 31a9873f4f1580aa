"""Reading run directories: what is refused, and with which message."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis import compare_methods, compare_runs, outcome, study
from analysis import runs as runs_lib
from tff_personalization.errors import UserError
from tff_personalization.records import places


def _expect(message: str, action) -> None:
    """`action` raises a UserError of one line that contains `message`."""
    with pytest.raises(UserError) as caught:
        action()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_directory_is_named(tmp_path):
    _expect(f"{tmp_path / 'gone'}: no such directory", lambda: runs_lib.read(tmp_path / "gone"))


def test_a_file_is_not_a_run_directory(tmp_path):
    (tmp_path / "file").write_text("")
    _expect("not a directory", lambda: runs_lib.read(tmp_path / "file"))


def test_a_directory_without_config_is_not_a_run_directory(tmp_path):
    _expect("not a run directory (no config.json)", lambda: runs_lib.read(tmp_path))


def test_an_unfinished_run_can_be_read_but_says_how_to_finish_it_when_its_summary_is_needed(make_run):
    run = runs_lib.read(make_run(finished=False))
    assert len(run.metrics) == 100
    _expect("unfinished run (no summary.json); to finish it, repeat the command", lambda: run.summary)


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_a_json_file_cut_short_is_named(make_run, name):
    directory = make_run()
    path = directory / name
    path.write_text(path.read_text()[:-5])
    _expect(f"{path}: not valid JSON", lambda: runs_lib.read(directory).summary)


def test_json_in_too_many_brackets_is_named(make_run):
    (path := make_run() / "config.json").write_text(100_000 * "[")
    _expect(f"{path}: not valid JSON", lambda: runs_lib.read(path.parent))


@pytest.mark.parametrize(("name", "read"), [("clients.csv", "clients"), ("metrics.csv", "metrics")])
def test_a_table_that_has_lost_whole_rows_is_named(make_run, name, read):
    (path := make_run() / name).write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    _expect(f"{path}: ", lambda: getattr(runs_lib.read(path.parent), read))


def test_a_lost_table_is_not_one_that_was_never_written(make_run):
    (path := make_run() / "metrics.csv").unlink()
    _expect(f"{path}: cannot be read", lambda: runs_lib.read(path.parent).metrics)


def test_a_missing_json_entry_is_named(make_run):
    directory = make_run()
    summary = json.loads((directory / "summary.json").read_text())
    del summary["gain"]
    (directory / "summary.json").write_text(json.dumps(summary))
    _expect("summary.json: no 'gain' in it", lambda: runs_lib.read(directory).summary)


@pytest.mark.parametrize(
    ("file", "entry", "damage"),
    [
        ("config.json", "flags", None),
        ("config.json", "flags", {"optimizers": 3}),
        ("config.json", "seed", "one"),
        ("config.json", "given", None),
        ("config.json", "client_data_file", 5),
        ("config.json", "starts", None),
        ("summary.json", "gain", None),
        ("summary.json", "strategies", []),
        ("summary.json", "personalized_accuracy", {"mean": "0.9", "sd": 0.1}),
        ("summary.json", "rounds_to_target", {"target_accuracy": 0.8}),
        ("summary.json", "times", {}),
    ],
)
def test_a_json_entry_of_another_type_is_named(make_run, file, entry, damage):
    path = make_run() / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {entry: damage}))
    _expect(f"{path}: {entry!r} in it is damaged", lambda: runs_lib.read(path.parent).summary)


def test_a_missing_csv_column_is_named(make_run):
    directory = make_run()
    pd.read_csv(directory / "clients.csv").drop(columns="accuracy").to_csv(directory / "clients.csv")
    _expect("clients.csv: no column 'accuracy'", lambda: runs_lib.read(directory).clients)


def test_numbers_are_those_that_python_reads_and_the_rest_is_missing():
    # Pandas' own parsers read outside their memory on such exponents; a fuzzer's process ended.
    texts = ["1", " -2.5 ", ".5", "1e-3", "1e714285714285714", "0.e714285714285714", "-inf", "0.12345678901234567"]
    assert places.numbers(texts).tolist() == [float(text) for text in texts]
    assert np.isnan(places.numbers(["1_0", "e7", "", "nan", "many", "0x1", "True", "\u0661"])).all()
    whole = places.numbers(["7", "+3", "-2"])
    assert whole.dtype == int
    assert whole.tolist() == [7, 3, -2]


def test_text_in_a_numeric_column_is_named_with_its_line(make_run):
    directory = make_run()
    lines = (directory / "distribution.csv").read_text().splitlines()
    lines[3] = lines[3].rsplit(",", 1)[0] + ",many"
    (directory / "distribution.csv").write_text("\n".join(lines))
    _expect("column 'clients', line 4: 'many' is not a number", lambda: runs_lib.read(directory).distribution)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"accuracy": 1.2}, "column 'accuracy', line 4: 1.2 is not within 0 and 1"),
        ({"accuracy": -0.1}, "column 'accuracy', line 4: -0.1 is not within 0 and 1"),
        ({"correct": 12, "test_predictions": 11}, "column 'correct', line 4: 12 is more than the predictions"),
        ({"correct": 1000}, "column 'correct', line 4: 1000 is more than the predictions"),
        ({"test_examples": -3}, "column 'test_examples', line 4: -3 is not a number of something"),
        ({"epoch": 1.5}, "column 'epoch', line 4: 1.5 is not a number of something"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_line(make_run, columns, message):
    directory = make_run()
    table = pd.read_csv(directory / "clients.csv")
    for column, value in columns.items():
        table[column] = table.get(column, 1.0)
        table.loc[2, column] = value
    table.to_csv(directory / "clients.csv", index=False)
    _expect(f"clients.csv: {message}", lambda: runs_lib.read(directory).clients)


def test_a_table_that_is_cut_short_is_named_though_half_a_number_is_a_number(make_run):
    directory = make_run()
    path = directory / "clients.csv"
    path.write_bytes(path.read_bytes()[:-2])
    _expect(f"{path}: line ", lambda: runs_lib.read(directory).clients)


@pytest.mark.parametrize("content", ["", "a,b\n1,2,3,4\n1\n1,2,3,4,5\n", b"\xff\xfe\x00bad"])
def test_a_file_without_a_table_is_named(make_run, content):
    directory = make_run()
    path = directory / "evaluations.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    _expect(f"{path}: ", lambda: runs_lib.read(directory).evaluations)


def test_client_gains_are_those_of_the_main_strategy_after_the_last_epoch(make_run):
    directory = make_run(epochs=3)
    gains = runs_lib.read(directory).client_gains()
    table = pd.read_csv(directory / "clients.csv", float_precision="round_trip")
    for client, expected in table[table["strategy"] == "fine_tuning"].groupby("client"):
        accuracy = expected.set_index("epoch")["accuracy"]
        if expected["test_examples"].iloc[0] == 0:
            assert client not in gains.index
            continue
        assert gains.loc[client, "initial"] == accuracy[0]
        assert gains.loc[client, "personalized"] == accuracy[3]
        assert gains.loc[client, "gain"] == accuracy[3] - accuracy[0]
        predictions = expected["test_examples"].iloc[0]
        assert gains.loc[client, "predictions"] == predictions
        assert gains.loc[client, "more_right"] == round(accuracy[3] * predictions) - round(accuracy[0] * predictions)
        assert gains.loc[client, "train_examples"] == expected["train_examples"].iloc[0]
    assert len(gains) == 68


def test_a_client_whose_test_examples_have_nothing_to_predict_has_no_gain(make_run):
    directory = make_run()
    table = pd.read_csv(directory / "clients.csv")
    table["test_predictions"] = 80 * table["test_examples"]
    tested = table.loc[table["test_examples"] > 0, "client"].iloc[0]
    table.loc[table["client"] == tested, ["test_predictions", "accuracy"]] = 0, np.nan  # such as a text of padding
    table.to_csv(directory / "clients.csv", index=False)
    gains = runs_lib.read(directory).client_gains()
    assert len(gains) == 67
    assert tested not in gains.index


def test_a_client_called_na_or_007_keeps_its_name(make_run):
    directory = make_run()
    text = (directory / "clients.csv").read_text()
    (directory / "clients.csv").write_text(text.replace("writer_000", "NA").replace("writer_001", "007"))
    assert {"NA", "007"} <= set(runs_lib.read(directory).client_gains().index)


def test_a_client_listed_twice_is_refused(make_run):
    directory = make_run()
    text = (directory / "clients.csv").read_text()
    (directory / "clients.csv").write_text(text.replace("writer_000", "writer_001"))
    _expect("a client appears twice", runs_lib.read(directory).client_gains)


def test_a_run_that_released_aggregates_has_no_client_gains(make_run):
    run = runs_lib.read(make_run(release="aggregates"))
    assert run.clients is None
    with pytest.raises(runs_lib.NotRecordedError, match="--evaluation_release=records"):
        run.client_gains()


def test_records_of_clients_that_are_lost_are_not_taken_for_aggregates(make_run):
    directory = make_run(flags={"evaluation_release": "records"})
    (directory / "clients.csv").unlink()
    for use in (lambda run: run.client_gains(), lambda run: outcome.sentence(run), lambda run: run.clients):
        _expect(f"{directory / 'clients.csv'}: missing", lambda use=use: use(runs_lib.read(directory)))


def test_synthetic_data_is_called_synthetic_even_when_its_description_does_not(make_run):
    directory = make_run()
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"source": "handwriting"}))
    assert runs_lib.read(directory).source == "synthetic: handwriting"


def test_runs_are_read_in_the_order_given_and_their_plots_directory_is_passed_over(make_run, tmp_path):
    second, first = make_run("b"), make_run("a")
    plots = second.parent / "plots"
    plots.mkdir()
    assert [run.name for run in runs_lib.read_all([second, plots, first])] == ["b", "a"]


def test_no_run_and_a_run_given_twice_are_refused(make_run):
    directory = make_run()
    _expect("RUN: no run directory given", lambda: runs_lib.read_all([]))
    _expect("given twice", lambda: runs_lib.read_all([directory, directory]))


def test_runs_that_share_a_name_are_distinguished_by_their_directory(make_run):
    paths = [make_run("x/same"), make_run("y/same"), make_run("other")]
    assert runs_lib.labels(runs_lib.read_all(paths)) == [str(paths[0]), str(paths[1]), "other"]


def test_right_answers_that_an_earlier_version_did_not_record_are_those_of_the_accuracies(make_run):
    directory = make_run()
    table = pd.read_csv(directory / "clients.csv", float_precision="round_trip")
    assert "correct" not in table
    read = runs_lib.read(directory).clients
    tested = read[read["test_examples"] > 0]
    assert (tested["correct"] / tested["test_examples"] == tested["accuracy"]).all()
    assert (read.loc[read["test_examples"] == 0, "correct"] == 0).all()
    own = np.arange(len(table)) % (10 * table["test_examples"] + 1)  # the record counts
    recorded = table.assign(test_predictions=10 * table["test_examples"], correct=own)
    recorded["accuracy"] = own / recorded["test_predictions"]
    recorded.to_csv(directory / "clients.csv", index=False)
    assert runs_lib.read(directory).clients["correct"].tolist() == own.tolist()
    recorded["accuracy"] = table["accuracy"]
    recorded.drop(columns="correct").to_csv(directory / "clients.csv", index=False)
    assert (runs_lib.read(directory).clients["correct"] == 10 * read["correct"]).all()


def test_records_that_a_windows_editor_saved_are_read(make_run):
    directory = make_run("run")
    before = runs_lib.read(directory)
    expected = before.summary, before.metrics, before.clients
    for path in (*directory.glob("*.json"), *directory.glob("*.csv")):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    after = runs_lib.read(directory)
    assert after.config == before.config
    assert after.summary == expected[0]
    pd.testing.assert_frame_equal(after.metrics, expected[1])
    pd.testing.assert_frame_equal(after.clients, expected[2])


def test_an_accuracy_that_is_not_the_share_of_right_answers_is_named_with_its_line(make_run):
    directory = make_run()
    table = pd.read_csv(directory / "clients.csv")
    table["correct"] = (table["accuracy"] * table["test_examples"]).fillna(0).round().astype(int)
    table.to_csv(directory / "clients.csv", index=False)
    assert runs_lib.read(directory).clients is not None
    table.loc[2, "correct"] -= 1
    table.to_csv(directory / "clients.csv", index=False)
    _expect("column 'accuracy', line 4: ", lambda: runs_lib.read(directory).clients)


RECORDS = ("clients", "distribution", "evaluations", "k_shot", "choice", "chosen_clients", "by_round", "decomposition")


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_that_an_unfinished_run_does_not_have_yet_says_so(make_run, record):
    directory = make_run()
    for path in (*directory.glob("*.csv"), directory / "summary.json"):
        path.unlink()
    _expect("unfinished run", lambda: getattr(runs_lib.read(directory), record))


def with_data(directory, **config):
    path = directory / "config.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **config, "flags": {**record["flags"], "client_data": "here/x.npz"}}))
    return runs_lib.read(directory)


HASHES = [
    {"examples_sha256": "a" * 64},
    {"client_data_file": {"bytes": 1, "sha256": "a" * 64}},
    {"data_sha256": "a" * 64},
]


@pytest.mark.parametrize("hashes", HASHES, ids=lambda hashes: next(iter(hashes)))
def test_data_of_one_name_with_other_contents_is_refused_by_every_comparison(make_run, hashes, tmp_path):
    other = json.loads(json.dumps(hashes).replace("a" * 64, "b" * 64))
    seed = 1 if "data_sha256" in hashes else 2
    one, two = with_data(make_run("one", seed=1), **hashes), with_data(make_run("two", seed=seed), **other)
    message = f"{one.directory} and {two.directory}: the contents of their client data x.npz differ"
    for compare in (compare_runs.over_seeds, compare_methods.compare, runs_lib.check_same_data):
        _expect(message, lambda compare=compare: compare([one, two]))
    _expect(message, lambda: study.read(one.directory.parent))
    same = with_data(make_run("three", seed=3), **hashes)
    runs_lib.check_same_data([one, same])


def test_a_split_by_another_seed_is_no_other_data(make_run):
    one = with_data(make_run("one", seed=1), examples_sha256="a", data_sha256="b")
    two = with_data(make_run("two", seed=2), examples_sha256="a", data_sha256="c")
    runs_lib.check_same_data([one, two])
    same_seed = with_data(make_run("data_seed", seed=1, flags={"data_seed": 2}), examples_sha256="a", data_sha256="c")
    runs_lib.check_same_data([one, same_seed])
    of_one_class = with_data(make_run("three", seed=1), examples_sha256="d", task="emnist10")
    runs_lib.check_same_data([one, two, of_one_class])


def test_a_table_with_more_cells_than_names_is_named(make_run):
    directory = make_run()
    path = directory / "clients.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(f"x,{row}" for row in rows)]) + "\n")
    _expect(f"{path}: line 2: more cells than the header has names", lambda: runs_lib.read(directory).clients)


def test_words_in_a_column_of_numbers_that_nobody_needs_are_named_too(make_run):
    directory = make_run()
    table = pd.read_csv(directory / "evaluations.csv", dtype=str)
    table.loc[1, "accuracy_q05"] = "many"
    table.to_csv(directory / "evaluations.csv", index=False)
    _expect("column 'accuracy_q05', line 3: 'many' is not a number", lambda: runs_lib.read(directory).evaluations)
