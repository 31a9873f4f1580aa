"""Checkpoints: kept, checked, and replaced by the one before if they are damaged."""

import collections
import json

import numpy as np
import pytest
import tensorflow as tf

from tff_personalization import errors
from tff_personalization.records import checkpoints


def state(number):
    return collections.OrderedDict(weights=[np.full((50, 3), number, np.float32)], round_number=number)


def structure(round_number):
    del round_number
    return state(0)


@pytest.fixture
def saved(tmp_path):
    """A directory with checkpoints after rounds 2 to 5, of which the newest three are kept."""
    kept = checkpoints.Checkpoints(tmp_path)
    for number in (2, 3, 4, 5):
        kept.save(state(number), number)
    return tmp_path


def newest(path):
    return checkpoints.Checkpoints(path).load_newest(structure)


def assert_is(found, number):
    assert found[0] == number
    np.testing.assert_array_equal(found[1]["weights"][0], state(number)["weights"][0])
    assert int(found[1]["round_number"]) == number


def test_there_is_none_at_first(tmp_path):
    assert newest(tmp_path) is None


def test_the_newest_is_loaded_and_three_are_kept(saved):
    assert checkpoints.Checkpoints(saved).rounds() == [3, 4, 5]
    assert sorted(path.name for path in saved.iterdir()) == sorted(
        [f"round_{number}{suffix}" for number in (3, 4, 5) for suffix in ("", ".json")]
    )
    assert_is(newest(saved), 5)


def test_saving_a_round_again_changes_nothing(saved):
    checkpoints.Checkpoints(saved).save(state(99), 5)
    assert_is(newest(saved), 5)


def files_of(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damages():
    yield "a bit of each file", lambda run, name: [flip(path) for path in files_of(run / name)]
    yield "one bit", lambda run, name: flip(next(path for path in files_of(run / name) if "data-" in path.name))
    yield "cut short", lambda run, name: files_of(run / name)[0].write_bytes(files_of(run / name)[0].read_bytes()[:-1])
    yield "a file is missing", lambda run, name: files_of(run / name)[-1].unlink()
    yield "a file too many", lambda run, name: (run / name / "more").write_text("")
    yield "no checksums", lambda run, name: (run / f"{name}.json").unlink()
    yield "checksums cut short", lambda run, name: (run / f"{name}.json").write_text("{")
    yield "checksums of another kind", lambda run, name: (run / f"{name}.json").write_text("[1]")
    yield "no checksum", lambda run, name: (run / f"{name}.json").write_text('{"format": 1, "sha256": []}')
    yield "a number for checksums", lambda run, name: (run / f"{name}.json").write_text('{"format": 1, "sha256": 5}')


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, damage in damages()])
def test_a_damaged_one_is_named_and_set_aside_and_the_one_before_is_used(saved, damage, caplog):
    damage(saved, "round_5")
    assert_is(newest(saved), 4)
    assert "round_5" in caplog.text
    assert (saved / "damaged_round_5").is_dir()
    assert checkpoints.Checkpoints(saved).rounds() == [3, 4]
    # The run continues and saves that round again.
    checkpoints.Checkpoints(saved).save(state(5), 5)
    assert_is(newest(saved), 5)


def test_if_all_are_damaged_there_is_none(saved):
    for number in (3, 4, 5):
        flip(files_of(saved / f"round_{number}")[0])
    assert newest(saved) is None


def test_what_was_half_written_is_cleared_away(saved):
    (saved / "round_6_temp1234").mkdir()
    (saved / "round_6.json_temp0").write_text("{")
    assert_is(newest(saved), 5)
    assert not list(saved.glob("*_temp*"))


def test_what_was_half_written_on_a_full_disk_is_removed_at_once(saved, monkeypatch):
    kept = checkpoints.Checkpoints(saved)

    def full(state, number):
        (saved / f"round_{number}_temp1" / "variables").mkdir(parents=True)
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(kept._states, "save", full)
    with pytest.raises(OSError, match="No space left"):
        kept.save(state(6), 6)
    assert not [*saved.glob("*_temp*")]
    assert_is(newest(saved), 5)


def test_another_format_is_refused_and_kept(saved):
    manifest = saved / "round_5.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(errors.UserError, match=r"round_5: a checkpoint of format 99; this version .* reads format 1"):
        newest(saved)
    assert (saved / "round_5").is_dir()


def test_another_structure_is_refused_and_kept(saved):
    with pytest.raises(errors.UserError, match="round_5: a checkpoint that this version of the program cannot read"):
        checkpoints.Checkpoints(saved).load_newest(lambda _: {"weights": [1, 2, 3], "another": 2})
    assert (saved / "round_5").is_dir()
