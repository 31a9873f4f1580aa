"""The cache of client data: it returns the same data, notices damage, and never prevents a run."""

import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
from absl import logging

from tff_personalization.tasks import archive_cache, archives

COUNTS = np.array([[5, 0, 7], [2, 1, 0]])


def entry(cache_dir, content=1, variant="all", source="made_up"):
    return archive_cache.Entry(str(cache_dir), source, (content,), variant)


def made(allocate, seed=0):
    rng = np.random.default_rng(seed)
    images = allocate(15)
    images[:] = rng.integers(0, 256, images.shape)
    labels = rng.integers(0, 62, 15).astype(np.int32)
    return archives.CharacterArchive.from_counts(
        images, labels, COUNTS, ("a", "b", "ç"), archives.CLASSES, "synthetic noise"
    )


EXPECTED = made(lambda count: np.empty((count, 28, 28), np.uint8))


def never(allocate):
    raise AssertionError("made again")


def assert_expected(archive):
    for name in ("images", "labels", "client_index", "is_test"):
        np.testing.assert_array_equal(getattr(archive, name), getattr(EXPECTED, name))
    for name in ("clients", "classes", "source"):
        assert getattr(archive, name) == getattr(EXPECTED, name)


@pytest.fixture
def warnings(monkeypatch):
    """The warnings as shown."""
    shown = []
    monkeypatch.setattr(logging, "warning", lambda message, *arguments: shown.append(message % arguments))
    return shown


def directories(cache_dir):
    return sorted(path.name for path in (cache_dir / "made_up").iterdir())


def test_what_was_kept_is_what_was_made(tmp_path, warnings):
    assert_expected(archive_cache.load_or_make(entry(tmp_path), made))
    assert_expected(archive_cache.load_or_make(entry(tmp_path), never))
    assert directories(tmp_path) == [entry(tmp_path).directory.name]
    assert not warnings


def test_images_are_mapped_and_cannot_be_written(tmp_path):
    for make in (made, never):
        images = archive_cache.load_or_make(entry(tmp_path), make).images
        assert not images.flags.owndata
        assert isinstance(images.base, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            images[0] = 0


def test_without_a_place_of_the_users_choice_it_is_the_users_cache(home):
    archive_cache.load_or_make(entry(""), made)
    assert (home / ".cache" / "tff_personalization" / "made_up").is_dir()


def test_another_content_replaces_what_was_kept_and_another_variant_does_not(tmp_path):
    for content, variant in ((1, "all"), (1, "digits"), (2, "all")):
        archive_cache.load_or_make(entry(tmp_path, content, variant), made)
        assert entry(tmp_path, content, variant).directory.is_dir()
        assert len(directories(tmp_path)) == {"all": 1, "digits": 2}[variant]


def test_files_of_another_source_are_not_changed(tmp_path):
    archive_cache.load_or_make(entry(tmp_path, source="other"), made)
    archive_cache.load_or_make(entry(tmp_path, content=2), made)
    assert_expected(archive_cache.load_or_make(entry(tmp_path, source="other"), never))


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "metadata.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: os.truncate(path, 90),
        lambda path: flip(path, 70),
        lambda path: flip(path, -20),
    ],
    ids=["gone", "empty", "one byte short", "short", "flipped at its beginning", "flipped at its end"],
)
def test_damage_is_noticed_said_in_one_line_and_made_good(tmp_path, warnings, name, damage):
    archive_cache.load_or_make(entry(tmp_path), made)
    damage(entry(tmp_path).directory / name)
    assert_expected(archive_cache.load_or_make(entry(tmp_path), made))
    assert len(warnings) == 1
    assert "is damaged" in warnings[0]
    assert "\n" not in warnings[0]
    assert_expected(archive_cache.load_or_make(entry(tmp_path), never))


def test_images_too_long_are_noticed_beyond_what_the_checksum_reads(tmp_path, warnings, monkeypatch):
    monkeypatch.setattr(archive_cache, "_CHECKED_BYTES", 1000)
    archive_cache.load_or_make(entry(tmp_path), made)
    assert_expected(archive_cache.load_or_make(entry(tmp_path), never))
    with (entry(tmp_path).directory / "images.npy").open("ab") as file:
        file.write(b"\0")
    assert_expected(archive_cache.load_or_make(entry(tmp_path), made))
    assert len(warnings) == 1


def assert_goes_on_without(tmp_path, warnings, reason):
    assert_expected(archive_cache.load_or_make(entry(tmp_path), made))
    assert len(warnings) == 1
    for part in (str(tmp_path), reason, "--cache_dir"):
        assert part in warnings[0]
    assert "\n" not in warnings[0]


def test_too_little_disk_space_is_reported_before_anything_is_written(tmp_path, warnings, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 5 * 10**8, 5 * 10**5))
    monkeypatch.setattr(np.lib.format, "open_memmap", never)
    assert_goes_on_without(tmp_path, warnings, "1.1 MB are needed, 0.5 MB are free")
    assert not directories(tmp_path)


@pytest.mark.parametrize(("module", "name"), [(os, "posix_fallocate"), (np, "save"), (os, "rename")])
def test_a_write_that_fails_leaves_nothing(tmp_path, warnings, monkeypatch, module, name):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, name, fail)
    assert_goes_on_without(tmp_path, warnings, "No space left on device")
    assert not directories(tmp_path)


def test_a_directory_that_cannot_be_made_is_reported(tmp_path, warnings):
    (tmp_path / "made_up").write_text("in the way")
    assert_goes_on_without(tmp_path, warnings, "made_up")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_reading_leaves_nothing(tmp_path, interruption):
    def interrupt(allocate):
        allocate(15)[:] = 1
        raise interruption

    with pytest.raises(interruption):
        archive_cache.load_or_make(entry(tmp_path), interrupt)
    assert not directories(tmp_path)


def make_and_die(cache_dir):
    def die(allocate):
        allocate(15)
        os.kill(os.getpid(), signal.SIGKILL)

    archive_cache.load_or_make(entry(cache_dir), die)


def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=make_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert [name.startswith("partial_") for name in directories(tmp_path)] == [True]
    archive_cache.load_or_make(entry(tmp_path), made)
    assert directories(tmp_path) == [entry(tmp_path).directory.name]


def make_in_step(cache_dir, barrier, results):
    def wait_and_make(allocate):
        images = allocate(15)
        barrier.wait(60)
        return made(lambda count: images)

    assert_expected(archive_cache.load_or_make(entry(cache_dir), wait_and_make))
    results.put(True)


def test_two_processes_that_make_the_same_at_once_both_have_it_and_one_is_kept(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=make_in_step, args=(tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [True, True]
    for process in processes:
        process.join()
    assert directories(tmp_path) == [entry(tmp_path).directory.name]
    assert_expected(archive_cache.load_or_make(entry(tmp_path), never))
