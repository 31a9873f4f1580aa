"""Sharing runs: their records in one file, readable as before, without paths of the machine."""

import json
import zipfile

import numpy as np
import pytest

from analysis import accuracy_distributions, claims, compare_methods, share_runs, study
from analysis import runs as runs_lib
from tff_personalization.errors import UserError
from tff_personalization.records import places


@pytest.fixture
def share(tmp_path):
    """Writes the records of a run to a zip file and returns its path."""
    return lambda directory: share_runs.write(share_runs.of_run(runs_lib.read(directory)), tmp_path / "shared.zip")


def test_what_is_shared_gives_the_same_tables_and_has_no_paths(make_run, share):
    directory = make_run("mine", flags={"client_data": "/home/me/hands.npz", "output_dir": "/home/me/runs/"})
    (directory / "checkpoints").mkdir()
    shared = share(directory)
    before, in_it, all_of_it = (
        compare_methods.compare(runs_lib.read_all([place])) for place in (directory, shared / "mine", shared)
    )
    assert before.equals(in_it)
    assert before.equals(all_of_it)
    config = runs_lib.read(shared / "mine").config
    assert (config["flags"]["client_data"], config["flags"]["output_dir"]) == ("hands.npz", "runs")
    with zipfile.ZipFile(shared) as archive:
        assert "/home" not in "".join(archive.read(name).decode() for name in archive.namelist())
        assert {name.split("/")[1] for name in archive.namelist()} <= {
            "config.json",
            "summary.json",
            *share_runs.TABLES,
        }


def test_a_study_in_a_zip_file_is_the_study_and_the_same_records_give_the_same_bytes(make_study, tmp_path):
    runs = [(label, {}, {"seed": seed}) for label in ("FedAvg", "Personalized FedAvg") for seed in (1, 2)]
    found = study.read(make_study("fine_tuning", runs))
    first, second = (share_runs.write(share_runs.of_study(found), tmp_path / name) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()
    shared = study.read(first)
    assert (
        claims.contents(shared)
        == claims.contents(found)
        == json.loads((shared.directory / "verdicts.json").read_text())
    )
    assert [shared.key(run) for run in shared.runs] == [found.key(run) for run in found.runs]
    again = share_runs.write(share_runs.of_study(shared), tmp_path / "again.zip")
    assert again.read_bytes() == first.read_bytes()
    with pytest.raises(
        UserError, match=r"a\.zip: a zip file; to make its verdicts again, run python -m analysis\.share_runs .* --to"
    ):
        claims.write(first)


@pytest.mark.parametrize(("release", "has_histogram"), [("records", False), ("aggregates", True)])
def test_the_histogram_is_shared_only_without_clients_and_is_the_same(make_run, share, release, has_histogram):
    directory = make_run("mine", release=release)
    shared = share(directory) / "mine"
    assert (places.place(shared) / "distribution.csv").exists() == has_histogram
    for kind in ("initial", "personalized"):
        before, after = (accuracy_distributions.histogram(runs_lib.read(of), kind) for of in (directory, shared))
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)


def test_losses_are_shortened_and_all_else_stays(make_run, share):
    directory = make_run("mine")
    table = 'client,accuracy,loss\n"a,b",0.8181818181818182,0.9045422293923118\nc,1.0,\n'
    (directory / "k_shot.csv").write_text(table)
    shared = share(directory) / "mine"
    assert places.read_bytes(places.place(shared) / "k_shot.csv").decode() == table.replace(
        "0.9045422293923118", "0.9045422"
    )


def test_another_run_is_not_lost(make_run, share):
    shared = share(make_run("mine", seed=1))
    before = shared.read_bytes()
    assert share(make_run("same/mine", seed=1)).read_bytes() == before
    for other in (make_run("others/mine", seed=2), make_run("yours", seed=1)):
        with pytest.raises(UserError, match="has another run, mine"):
            share(other)
    assert shared.read_bytes() == before


def _in_directory(content, place, value):
    """With another byte at a place in the directory's entry of the first member."""
    entry = content.index(b"PK\x01\x02")
    return content[: entry + place] + bytes([value]) + content[entry + place + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], r"shared\.zip: not a zip file"),
        (lambda content: content.replace(b"\x00" * 8, b"", 1), r"shared\.zip"),
        (lambda content: content[:300] + bytes(200) + content[500:], "cannot be read"),
        (lambda content: _in_directory(content, 6, 255), r"shared\.zip: not a zip file \(zip file version"),
        (lambda content: _in_directory(content, 8, 1), "cannot be read .*encrypted"),
        (lambda content: _in_directory(content, 10, 13), "cannot be read .*compression"),
    ],
    ids=["cut short", "bytes missing", "bytes overwritten", "version", "encryption", "compression"],
)
def test_a_damaged_zip_file_is_named(make_run, share, damage, message):
    shared = share(make_run("mine"))
    shared.write_bytes(damage(shared.read_bytes()))
    with pytest.raises(UserError, match=message):
        print(runs_lib.read(shared / "mine").clients)


def test_a_zip_file_with_other_files_or_runs_in_a_folder_is_named(tmp_path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as other:
        other.writestr("runs/mine/config.json", "{}")
    with pytest.raises(UserError, match=r"other\.zip: not a run directory \(no config\.json\)"):
        runs_lib.read_all([path])


def test_what_cannot_be_shared_is_refused(make_run, share, tmp_path):
    with pytest.raises(UserError, match="unfinished"):
        share(make_run(finished=False))
    lost = make_run("lost", flags={"evaluation_release": "records"})
    (lost / "clients.csv").unlink()
    with pytest.raises(UserError, match=r"clients\.csv: missing: restore"):
        share(lost)
    with pytest.raises(UserError, match=r"does not end in \.zip"):
        share_runs.write({}, tmp_path / "shared")
    assert not list(tmp_path.glob("shared*"))
