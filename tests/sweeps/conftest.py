"""Sweeps of tests."""

import pytest
from absl import flags

from tff_personalization.experiment import config
from tff_personalization.sweeps import search


@pytest.fixture
def sweep_of(tmp_path):
    """Makes a sweep from a file's text and other flags, as the program does."""

    def make(text, *arguments):
        path = tmp_path / "sweep.toml"
        path.write_text(text)
        values = flags.FlagValues()
        config.define_flags(values)
        values(["program", f"--sweep={path}", f"--output_dir={tmp_path / 'runs'}", *arguments])
        return search.sweep_of(values)

    return make


def small_runs(by_writer_archive):
    return [
        *(f"--client_data={by_writer_archive}", "--model=linear", "--clients_per_round=3", "--test_clients=4"),
        *("--strategies=fine_tune", "--personalization_epochs=1", "--local_epochs=1", "--noplots"),
        "--rounds_per_evaluation=30",
    ]
