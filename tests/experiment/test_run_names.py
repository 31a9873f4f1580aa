"""Names of run directories: shared runs keep their names."""

import json
import pathlib

import pytest
from absl import flags

from tff_personalization.experiment import config

# The flags of each run, without those that change no result. One run for each method and set of flags.
SHARED = json.loads(pathlib.Path(__file__).with_name("shared_run_names.json").read_text(encoding="utf-8"))


def name_of(given):
    values = flags.FlagValues()
    config.define_flags(values)
    values(["run_experiment", *(config.argument(name, value) for name, value in given.items())])
    return config.from_flags(values).run_name()


@pytest.mark.parametrize("name", SHARED)
def test_the_flags_of_a_shared_run_still_make_its_name(name):
    assert name_of(SHARED[name]) == name
