"""A part of the stress test of malformed input, and properties of parsers and splits."""

import random

import numpy as np
import pytest
from absl import flags
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.stress import bad_input
from tests.tasks.sources import small_files
from tff_personalization import errors
from tff_personalization.experiment import config
from tff_personalization.models import characters
from tff_personalization.records import round_tables
from tff_personalization.tasks import archives, splits
from tff_personalization.tasks.sources import npz_archive

IDS = st.lists(st.text(max_size=6), min_size=1, max_size=40, unique=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory for the files that a property is tried on, one after another."""
    return tmp_path_factory.mktemp("place")


@pytest.mark.parametrize("kind", bad_input.KINDS)
def test_malformed_input_is_refused_in_one_line_or_read_correctly(kind, tmp_path):
    draw = random.Random(kind)
    for _ in range(10):
        assert bad_input.outcome(bad_input.KINDS[kind](tmp_path, draw)) in ("refused", "accepted")


def test_the_stress_test_itself_can_fail():
    def wrong():
        raise ValueError("a traceback")

    def two_lines():
        error = errors.UserError("one")
        error.args = ("one\ntwo",)  # which its constructor would make one line
        raise error

    assert bad_input.outcome(wrong) == "ValueError: a traceback"
    assert "not one line" in bad_input.outcome(two_lines)
    assert bad_input.outcome(lambda: None) == "accepted"


@settings(deadline=None)
@given(
    ids=IDS,
    seed=st.integers(0, 2**32),
    train=st.none() | st.integers(-3, 50),
    validation=st.integers(-3, 50),
    test=st.none() | st.integers(-3, 50),
)
@example(["", "\0"], 0, None, 0, 1)
def test_any_split_is_of_the_numbers_asked_for_and_disjoint_or_is_refused(ids, seed, train, validation, test):
    try:
        made = splits.split_clients(ids, np.random.default_rng(seed), train, validation, test)
    except errors.UserError:
        return
    everyone = [*made.train, *made.validation, *made.test]
    assert len(set(everyone)) == len(everyone)
    assert set(everyone) <= set(ids)
    assert made.train
    assert made.test
    assert len(made.validation) == validation
    assert test is None or len(made.test) == test
    assert len(made.train) == train if train is not None else len(everyone) == len(ids)


@settings(deadline=None)
@given(
    examples=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=80),
    seed=st.integers(0, 2**32),
)
def test_a_fifth_of_each_writers_examples_is_tested(examples, seed):
    writer, label = np.array(examples).T
    is_test = archives.split_by_client(label, writer, np.random.default_rng(seed))
    for one in np.unique(writer):
        count, tested = (writer == one).sum(), is_test[writer == one].sum()
        assert abs(tested - count / 5) < 1
        for kind in np.unique(label[writer == one]):
            of_class = (writer == one) & (label == kind)
            assert abs(is_test[of_class].sum() - of_class.sum() / 5) <= 1


@settings(deadline=None, max_examples=50)
@given(
    examples=st.lists(st.tuples(st.sampled_from("abcü"), st.integers(0, 61), st.booleans()), min_size=1, max_size=20),
    dtype=st.sampled_from(["u1", "i8", "f4", "f8"]),
    seed=st.integers(0, 2**32),
)
def test_any_sound_archive_is_read_as_it_was_written(place, examples, dtype, seed):
    writers, labels, are_tests = map(np.array, zip(*examples, strict=True))
    images = np.zeros((len(examples), 28, 28), np.uint8)
    images[:, 4:24, 4:24] = np.random.default_rng(seed).integers(0, 256, (len(examples), 20, 20))
    written = images.astype(dtype) / 255 if dtype.startswith("f") else images.astype(dtype)
    split = np.where(are_tests, "test", "train")
    np.savez(place / "x.npz", images=written, labels=labels, writer=writers, split=split)
    read = npz_archive.load(small_files.options(place / "x.npz"))
    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.labels, labels)
    np.testing.assert_array_equal(read.client, writers)
    np.testing.assert_array_equal(read.is_test, are_tests)


@settings(deadline=None, max_examples=50)
@given(snippets=st.lists(st.binary(max_size=200), max_size=5))
def test_any_text_is_in_its_sequences_once_and_in_order(snippets):
    x, y = characters.to_sequences(snippets)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    ids = [id_ for piece in np.column_stack([x, y[:, -1]]) for id_ in piece if id_ != characters.PAD]
    said = [
        whole[: len(whole) - (len(whole) % (characters.SEQUENCE_LENGTH + 1) == 1)]  # a single id predicts nothing
        for whole in map(characters.encode, snippets)
    ]
    assert ids == [id_ for whole in said for id_ in whole]


@settings(deadline=None, max_examples=50)
@given(cut=st.integers(0, 100), round_number=st.integers(0, 10))
def test_records_cut_anywhere_are_those_of_whole_rounds_or_refused(place, cut, round_number):
    config = bad_input.experiment(place, "--rounds_per_evaluation=0").config
    directory = place / "run"
    directory.mkdir(exist_ok=True)
    lines = ["round,clients\r\n", *(f"{number},20\r\n" for number in range(1, 13))]
    whole = "".join(lines).encode()
    (directory / "metrics.csv").write_bytes(whole[:cut])
    needed = len("".join(lines[: round_number + 1])) if round_number else 0
    if cut < needed:
        with pytest.raises(errors.UserError, match=r"metrics\.csv, line \d+: damaged"):
            round_tables.keep_until(directory, config, round_number)
    else:
        round_tables.keep_until(directory, config, round_number)
        kept = (directory / "metrics.csv").read_bytes() if round_number else b""
        assert kept == whole[:needed]


@settings(deadline=None, max_examples=50)
@given(
    rate=st.floats(1e-30, 1e30),
    rounds=st.integers(0, 10**9),
    plots=st.booleans(),
    rates=st.lists(st.floats(1e-30, 1e30), min_size=1, max_size=4),
)
def test_any_setting_survives_the_command_line(rate, rounds, plots, rates):
    """As sweeps pass settings to their runs."""
    given = {
        "client_learning_rate": rate,
        "rounds": rounds,
        "plots": plots,
        "personalization_learning_rates": rates,
    }
    values = flags.FlagValues()
    config.define_flags(values)
    values(["program", *(config.argument(name, value) for name, value in given.items())])
    taken = {name: values[name].value for name in given}
    taken["personalization_learning_rates"] = [float(text) for text in taken["personalization_learning_rates"]]
    assert taken == given
