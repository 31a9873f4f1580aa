"""Predictions on test images agree with the run's accuracies."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from tff_personalization import errors
from tff_personalization.tools import decompose, gallery


def test_predictions_give_the_recorded_accuracies_and_are_refused_where_they_do_not(run, by_writer_archive):
    finished = run(rounds=2, rounds_per_evaluation=0, personalization_epochs=2, strategies=["fine_tune"])
    arrays = gallery.gallery(finished)
    recorded = pd.read_csv(finished / "clients.csv")
    table = pd.DataFrame({name: arrays[name] for name in ("client", "labels", "before", "after")})
    for name, epoch in (("before", 0), ("after", 2)):
        right = (table[name] == table["labels"]).groupby(table["client"]).mean()
        expected = recorded[recorded["epoch"] == epoch].set_index("client")["accuracy"]
        pd.testing.assert_series_equal(right.sort_index(), expected.sort_index(), check_names=False)
    assert (table["before"] != table["after"]).any()
    assert arrays["classes"].tolist()[:11] == [*"0123456789A"]
    with np.load(by_writer_archive) as archive:
        known = {image.tobytes() for image in archive["images"]}
    assert all(image.tobytes() in known for image in arrays["images"])
    end = recorded["epoch"] == 2
    recorded.loc[end, "correct"] = (recorded["correct"] + 1) % (recorded["test_predictions"] + 1)
    recorded["accuracy"] = recorded["correct"] / recorded["test_predictions"]
    recorded.to_csv(finished / "clients.csv", index=False)
    with pytest.raises(errors.UserError, match=f"{recorded['client'][0]}.* in clients.csv"):
        gallery.gallery(finished, 1)


@pytest.mark.parametrize("tool", [gallery, decompose])
def test_a_run_that_is_read_only_is_refused_before_anything_is_computed(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(errors.UserError, match=f"{tmp_path}: it is read-only: copy it"):
        tool.main(["tool", str(tmp_path)])


def test_runs_that_have_no_gallery_are_refused(run):
    of_head = run(rounds=1, rounds_per_evaluation=0, strategies=["fine_tune_head"])
    with pytest.raises(errors.UserError, match="--strategies=fine_tune"):
        gallery.gallery(of_head)
    config = json.loads((of_head / "config.json").read_text())
    flags = config["flags"] | {"evaluation_release": "aggregates"}
    (of_head / "config.json").write_text(json.dumps(config | {"data_sha256": "0", "flags": flags}))
    (of_head / "clients.csv").write_text((of_head / "clients.csv").read_text().replace("fine_tune_head", "fine_tune"))
    with pytest.raises(errors.UserError, match="has changed"):
        gallery.gallery(of_head)
    (of_head / "clients.csv").unlink()
    with pytest.raises(errors.UserError, match="only aggregates"):
        gallery.gallery(of_head)
    (of_head / "summary.json").unlink()
    with pytest.raises(errors.UserError, match="unfinished"):
        gallery.gallery(of_head)
