"""The run directory: the contents of config.json, and when it belongs to another run."""

import dataclasses
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from absl import flags

from tests.tasks.sources import written_forms
from tff_personalization import errors
from tff_personalization.experiment import config
from tff_personalization.records import finished_run, run_directory, run_writer
from tff_personalization.tasks import federated_data

TWO = "--test_clients=2"


@pytest.fixture
def directory_of(tmp_path):
    """Makes the run directory of a file of client data, as the program does."""

    def make(path, *arguments):
        values = flags.FlagValues()
        config.define_flags(values)
        values(["program", f"--client_data={path}", "--test_clients=4", f"--output_dir={tmp_path}", *arguments])
        return run_directory.RunDirectory(config.from_flags(values))

    return make


@pytest.fixture
def begin(directory_of):
    """Begins or resumes a run on a file of client data."""

    def start(path, *arguments, after_round=None, finished=False, **how):
        directory = directory_of(path, *arguments)
        data = federated_data.load(directory.experiment.config)
        with run_writer.opened(directory, data, how) as writer:
            if after_round is not None:
                writer.resume_after(after_round)
            if finished:
                writer.write_json("summary.json", {})
        return directory

    return start


@pytest.fixture
def folds(tmp_path, by_writer_archive):
    """Two files of the same name and size, with other contents."""
    one, two = tmp_path / "fold1" / "data.npz", tmp_path / "fold2" / "data.npz"
    for path in (one, two):
        path.parent.mkdir()
        shutil.copyfile(by_writer_archive, path)
    with two.open("r+b") as file:
        file.seek(two.stat().st_size // 2)
        file.write(b"\xff\x00\xff")
    return one, two


def test_a_finished_run_is_not_that_of_another_file_of_the_same_name(begin, directory_of, folds):
    one, two = folds
    directory = begin(one)
    assert directory_of(two).path == directory.path  # an unfinished run reads the data
    begin(one, finished=True)
    assert directory_of(one).finished
    with pytest.raises(errors.UserError, match=r"=.*fold2/data.npz: .* was made from other data.*--run_name"):
        directory_of(two)
    shutil.copyfile(two, one)
    with pytest.raises(errors.UserError, match="was made from other data"):
        directory_of(one)
    one.unlink()
    assert directory_of(one).finished


def test_a_finished_run_that_does_not_say_from_which_file_it_came_is_what_it_was(begin, directory_of, folds):
    directory = begin(folds[0], finished=True)
    path = directory.path / "config.json"
    record = json.loads(path.read_text())
    del record["client_data_file"]
    path.write_text(json.dumps(record))
    assert directory_of(folds[1]).finished


def test_a_finished_run_is_not_that_of_another_folder_of_the_same_name(begin, directory_of, tmp_path):
    one, two = tmp_path / "fold1" / "data", tmp_path / "fold2" / "data"
    images, labels, writers, _ = written_forms.examples()
    for path in (one, two):
        written_forms.leaf(path / "part.json", images, labels, writers)
        images = images[::-1].copy()
    begin(one, TWO, finished=True)
    (one / ".hidden").write_text("")
    assert directory_of(one, TWO).finished
    with pytest.raises(errors.UserError, match=r"--client_data=.*fold2/data: .* was made from other data"):
        directory_of(two, TWO)
    (one / "part.json").rename(one / "other.json")
    assert directory_of(one, TWO).finished  # the same examples


def test_a_run_depends_on_the_clients_that_a_file_names_and_not_on_its_path(
    begin, directory_of, by_writer_archive, tmp_path
):
    ids, same = tmp_path / "ids.txt", tmp_path / "same.txt"
    ids.write_text("w01\nw02\nw03\nw04\n")
    same.write_text("w01\n\nw02\nw03\nw04")
    begin(by_writer_archive, f"--train_client_ids={ids}", finished=True)
    named = begin(by_writer_archive, f"--train_client_ids={ids}", "--run_name=named", finished=True)
    assert directory_of(by_writer_archive, f"--train_client_ids={same}").finished
    finished = finished_run.FinishedRun.open(directory_of(by_writer_archive, f"--train_client_ids={ids}").path)
    assert sorted(finished.data.split.train) == ["w01", "w02", "w03", "w04"]
    ids.write_text("w05\nw06\nw07\nw08\n")
    assert not directory_of(by_writer_archive, f"--train_client_ids={ids}").finished
    with pytest.raises(run_directory.OtherSettings, match="client_ids_sha256 was") as refusal:
        directory_of(by_writer_archive, f"--train_client_ids={ids}", "--run_name=named")
    assert refusal.value.path == named.path
    with pytest.raises(errors.UserError, match=r"--train_client_ids=.*ids.txt: the file names other clients"):
        _ = dataclasses.replace(finished).data


def test_a_run_that_resumes_with_the_same_examples_in_other_bytes_names_that_file(begin, directory_of, folds):
    one, two = folds
    begin(one)
    shutil.copyfile(one, two)
    with two.open("ab") as file:
        file.write(b"\0")  # behind the archive's end
    directory = begin(two, finished=True)
    assert directory.record()["client_data_file"] == directory.fingerprint()
    assert directory_of(one).finished


@pytest.mark.parametrize("rounds", ["two", None])
def test_a_record_with_a_damaged_number_of_rounds_is_one_line(begin, directory_of, by_writer_archive, rounds):
    path = begin(by_writer_archive, finished=True).path / "config.json"
    record = json.loads(path.read_text())
    for damaged in (json.dumps({**record, "flags": {**record["flags"], "rounds": rounds}}), 100_000 * "["):
        path.write_text(damaged)
        with pytest.raises(errors.UserError, match=r"config.json is damaged \(\w*Error\)"):
            directory_of(by_writer_archive)


def test_other_settings_are_named_by_their_flags(begin, directory_of, by_writer_archive):
    named = "--run_name=named"
    begin(by_writer_archive, named, finished=True)
    with pytest.raises(errors.UserError, match=r"\(client_learning_rate was 0.02, is 0.5\)"):
        directory_of(by_writer_archive, named, "--client_learning_rate=0.5")
    schedule = "client_learning_rate_schedule was None, is 'cosine'"
    with pytest.raises(errors.UserError, match=rf"\({schedule}\)"):
        directory_of(by_writer_archive, named, "--client_learning_rate_schedule=cosine")


def test_a_run_that_has_computed_nothing_may_begin_with_other_settings(begin, directory_of, by_writer_archive):
    named = "--run_name=named"
    begin(by_writer_archive, named)
    directory = begin(by_writer_archive, named, "--client_learning_rate=0.5")
    assert directory.record()["given"]["client_learning_rate"] == 0.5
    (directory.path / "metrics.csv").write_text("round\n")
    with pytest.raises(errors.UserError, match=r"client_learning_rate was 0\.5, is 0\.02"):
        directory_of(by_writer_archive, named)


def test_a_run_that_resumes_after_its_data_has_moved_records_the_new_place(begin, by_writer_archive, tmp_path):
    named = "--run_name=named"
    directory = begin(by_writer_archive, named)
    (directory.path / "metrics.csv").write_text("round\n")
    (tmp_path / "elsewhere").mkdir()
    moved = str(shutil.copy(by_writer_archive, tmp_path / "elsewhere"))
    record = begin(moved, named).record()
    assert record["given"]["client_data"] == record["flags"]["client_data"] == moved


def test_a_run_whose_settings_are_lost_is_refused(begin, directory_of, by_writer_archive):
    directory = begin(by_writer_archive, "--run_name=named", finished=True)
    (directory.path / "config.json").unlink()
    with pytest.raises(errors.UserError, match=r"config\.json is missing: restore it, or move .*/named away"):
        directory_of(by_writer_archive, "--run_name=named", "--seed=2")


def test_a_folder_whose_name_is_not_utf8_is_refused(directory_of, by_writer_archive, tmp_path):
    with pytest.raises(errors.UserError, match=r"--output_dir: .*/l\\udcf6sung/.*: a name that is not UTF-8"):
        directory_of(by_writer_archive, f"--output_dir={tmp_path}/l\udcf6sung")


def test_settings_are_compared_with_those_that_another_process_wrote_meanwhile(begin, directory_of, by_writer_archive):
    directory = directory_of(by_writer_archive, "--run_name=named", "--seed=2")
    begin(by_writer_archive, "--run_name=named", finished=True)
    with (
        pytest.raises(run_directory.OtherSettings, match="seed was 1, is 2"),
        run_writer.opened(directory, federated_data.load(directory.experiment.config), {}),
    ):
        pass


@pytest.mark.parametrize("lock", [None, "1\n"])
def test_a_directory_that_is_no_longer_this_runs_is_refused(directory_of, by_writer_archive, lock):
    directory = directory_of(by_writer_archive)
    with run_writer.opened(directory, federated_data.load(directory.experiment.config), {}) as writer:
        writer.check_place()
        (directory.path / "lock").unlink() if lock is None else (directory.path / "lock").write_text(lock)
        with pytest.raises(errors.UserError, match="was moved, removed or taken by another process"):
            writer.check_place()


def test_a_run_does_not_resume_without_the_states_of_its_clients(begin, directory_of, by_writer_archive):
    directory = directory_of(by_writer_archive)
    with run_writer.opened(directory, federated_data.load(directory.experiment.config), {}) as writer:
        writer.client_states.write(["w01"], [np.zeros(2)], 1)
        writer.save_checkpoint({"weights": np.zeros(3, np.float32)}, 1)
    shutil.rmtree(directory.path / "client_states")
    with pytest.raises(errors.UserError, match="client_states: lacks states that clients had after round 1"):
        begin(by_writer_archive, after_round=1)


def test_a_run_that_resumes_with_other_code_says_so(begin, by_writer_archive, monkeypatch, caplog):
    unevaluated = "--rounds_per_evaluation=0"
    directory = begin(by_writer_archive, unevaluated, after_round=0)
    (directory.path / "metrics.csv").write_text("round\n1\n")
    begin(by_writer_archive, unevaluated, after_round=1)
    assert caplog.text == ""
    monkeypatch.setattr(run_directory, "code_sha256", lambda: "other")
    begin(by_writer_archive, unevaluated, after_round=1)
    assert f"{directory.path}: rounds up to 1 were computed by other code" in caplog.text


def test_every_start_is_recorded_and_a_new_beginning_describes_the_run_again(begin, by_writer_archive):
    unevaluated = "--rounds_per_evaluation=0"
    taken_over = {"rounds_taken_over": {"run_name": "earlier"}}
    begin(by_writer_archive, unevaluated, after_round=0, cores=2, **taken_over)  # nothing else: there is no checkpoint
    directory = begin(by_writer_archive, unevaluated, after_round=0, cores=3)
    (directory.path / "metrics.csv").write_text("round\n" + "".join(f"{number}\n" for number in range(1, 9)))
    begin(by_writer_archive, "--workers=there:1", unevaluated, after_round=8, cores=4)
    record = json.loads((directory.path / "config.json").read_text())
    assert record["cores"] == 3
    assert "rounds_taken_over" not in record
    starts = record["starts"]
    found = [(start["after_round"], start["cores"], start["workers"]) for start in starts]
    assert found == [(0, 2, []), (0, 3, []), (8, 4, ["there:1"])]
    assert all(start[name] == record[name] for start in starts for name in ("git_commit", "versions"))


def test_a_commit_has_changes_if_code_or_what_it_holds_is_not_as_it_was(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    code = tmp_path / "package" / "programs" / "code.py"
    code.parent.mkdir(parents=True)
    code.write_text("")
    monkeypatch.setattr(run_directory, "__file__", str(code))
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "my data.npz").write_text("")
    assert "+" not in run_directory.git_commit()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "my plugin.py").write_text("")
    assert run_directory.git_commit().endswith("+changes")
    (tmp_path / "other" / "my plugin.py").unlink()
    code.write_text("a = 1")
    assert run_directory.git_commit().endswith("+changes")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with code, like the project's; returns its folder and commit."""
    code = tmp_path / "project" / "package" / "programs" / "code.py"
    code.parent.mkdir(parents=True)
    code.write_text("")
    monkeypatch.setattr(run_directory, "__file__", str(code))
    root = tmp_path / "project"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(root)]
    for arguments in (["init"], ["add", "."], ["commit", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    return root, commit


def test_the_commit_is_read_in_a_checkout_of_another_user_and_in_a_hook_of_another_repository(repository, monkeypatch):
    root, commit = repository
    monkeypatch.setenv("GIT_DIR", "/no/such/repository")
    assert run_directory.git_commit() == commit
    if os.geteuid():
        pytest.skip("only root can give files to another user")
    subprocess.run(["chown", "-R", "12345:12345", str(root)], check=True)
    assert run_directory.git_commit() == commit


def test_a_commit_that_git_does_not_report_is_unknown_and_the_reason_is_given(repository, caplog, monkeypatch):
    root, _ = repository
    (root / ".git" / "HEAD").write_text("damaged")
    assert run_directory.git_commit() == "unknown"
    assert "The commit of the code is not recorded: git: fatal: not a git repository" in caplog.text
    monkeypatch.setenv("PATH", "/no/such/folder")
    assert run_directory.git_commit() == "unknown"
    assert "git: No such file or directory" in caplog.text


def test_the_commit_of_a_repository_around_the_project_is_not_the_projects(repository):
    root, _ = repository
    (root / ".git").rename(root.parent / ".git")
    assert run_directory.git_commit() == "unknown"


def test_a_setting_that_a_run_does_not_read_may_have_had_another_default(begin, directory_of, folds):
    path, _ = folds
    record = begin(path, finished=True).path / "config.json"
    written = json.loads(record.read_text())
    assert "knn_neighbours" in written["flags"]
    for name, still_the_same in (("knn_neighbours", True), ("local_epochs", False)):
        changed = written["flags"] | {name: 77}
        record.write_text(json.dumps(written | {"flags": changed}))
        if still_the_same:
            assert directory_of(path).finished
        else:
            with pytest.raises(errors.UserError, match="local_epochs was 77"):
                directory_of(path)
