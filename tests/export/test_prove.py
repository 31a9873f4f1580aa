"""The proof on a real, small run: its comparison, and that it notices a wrong file."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.tasks.sources import small_files
from tff_personalization.export import __main__ as command
from tff_personalization.export import prove


def test_the_file_personalizes_as_the_evaluation_does(run, linear_run, tmp_path):
    directory = run(rounds=2, rounds_per_evaluation=0, strategies=["fine_tune", "fine_tune_early_stopping"])
    path = command.export(directory, "tflite")
    table, found = prove.prove(directory, path, count=3)
    assert len(table) == 3 * 3  # clients and epochs, that before among them
    assert table["tflite_accuracy"].tolist() == table["tff_accuracy"].tolist()
    np.testing.assert_allclose(table["tflite_loss"], table["tff_loss"], atol=1e-5)
    # The run's own final evaluation used the same model and seeds.
    own = pd.read_csv(directory / "clients.csv")
    own = own[own["strategy"] == "fine_tune"].set_index(["client", "epoch"])["accuracy"]
    for row in table.itertuples():
        assert row.tff_accuracy == pytest.approx(own[row.client, row.epoch])
    assert found["bytes"] == path.stat().st_size > found["bytes_quantized"]
    assert found["ms_per_step"] > 0
    text = prove.markdown(table, found)
    assert f"| **mean** | | | {table[table.epoch == 0].tff_accuracy.mean():.3f} |" in text
    assert "bars" in text  # the source of the data
    stopped = command.export(directory, "tflite", strategy="fine_tune_early_stopping")
    table, _ = prove.prove(directory, stopped, count=4)
    assert table["tflite_accuracy"].tolist() == table["tff_accuracy"].tolist()
    # A file of another run.
    small_files.refusal(prove.prove, linear_run, path, 3, names=[path, linear_run])
    # Data that has changed since the run.
    config = json.loads((directory / "config.json").read_text())
    archive = np.load(config["flags"]["client_data"])
    np.savez(tmp_path / "changed.npz", **{**archive, "labels": archive["labels"][::-1]})
    changed = str(tmp_path / "changed.npz")
    small_files.refusal(prove.prove, directory, path, 3, changed, names=[changed, "SHA-256"])
