"""The identity of a run."""

import pytest
from absl import flags

from tff_personalization import errors, identity
from tff_personalization.experiment import config, settings


def _experiment(*arguments):
    values = flags.FlagValues()
    config.define_flags(values)
    values(["program", *arguments])
    return config.from_flags(values)


def test_settings_at_their_defaults_and_those_that_change_no_number_are_left_out():
    defaults = {"rounds": 500, "seed": 1, "strategies": []}
    given = {"rounds": 500, "seed": 2, "strategies": ["a"], "output_dir": "x", "optimizers": {}}
    assert identity.of(given, defaults) == {"seed": 2, "strategies": ["a"], "optimizers": {}}


def test_a_setting_that_a_later_version_adds_leaves_names_as_they_are(monkeypatch):
    before = _experiment("--rounds=7").run_name()
    of_later = {**settings.defaults(), "added_later": None}
    monkeypatch.setattr(settings, "defaults", lambda: of_later)
    monkeypatch.setattr(
        config.Experiment, "as_json", lambda self, json=config.Experiment.as_json: {**json(self), "added_later": None}
    )
    assert _experiment("--rounds=7").run_name() == before
    assert _experiment("--rounds=8").run_name() != before


def test_a_file_of_client_data_is_known_by_its_name():
    here, there, other = (
        _experiment(f"--client_data={path}").run_name() for path in ("/a/x.npz", "b/x.npz", "b/y.npz")
    )
    assert here == there != other


def test_a_file_of_client_ids_is_known_by_the_clients_that_it_names_and_in_earlier_versions_by_its_path(tmp_path):
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    for path in (one, other):
        path.write_text("a\nb")
    ours, same = (_experiment(f"--test_client_ids={path}").as_json() for path in (one, other))
    assert identity.of(ours, {}) == identity.of(same, {})
    del ours["client_ids_sha256"], same["client_ids_sha256"]
    assert identity.of(ours, {}) != identity.of(same, {})


def test_the_second_stage_begins_after_a_share_of_the_rounds_or_with_a_round():
    method = ("--method=personalized_fed_avg", "--rounds=60")
    share, given = _experiment(*method, "--stage_1_share=0.75"), _experiment(*method, "--stage_2_round=46")
    assert share.values["stage_2_round"] == 46
    assert share.run_name() == given.run_name()
    assert _experiment(*method).values["stage_2_round"] == 49
    with pytest.raises(errors.UserError, match=r"--stage_1_share=0.5 and --stage_2_round=46"):
        _experiment(*method, "--stage_1_share=0.5", "--stage_2_round=46")
    with pytest.raises(errors.UserError, match="after the last round"):
        _experiment(*method, "--stage_1_share=1")
