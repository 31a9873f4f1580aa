"""Settings in groups: defaults, bounds and choices, read by name, shared between groups."""

import math

import pytest
from absl import flags

from tff_personalization import errors, optimizers, settings
from tff_personalization.experiment import config
from tff_personalization.experiment import settings as of_runs

SHARED = settings.Setting(10, "A number.", least=1, most=20)


class One(settings.Group):
    shared = SHARED
    share = settings.Setting(0.5, "A share.", least=0, most=1)
    names = settings.Setting(["a"], "Names.", choices=("a", "b"))


class Other(One):
    server = optimizers.SERVER


def test_a_group_has_defaults_and_takes_values_by_name():
    assert (One().shared, One().share, One().names) == (10, 0.5, ["a"])
    assert One(shared=3).shared == 3
    assert Other.parts()["shared"] is SHARED
    assert Other().server == optimizers.OptimizerSpec("sgd", 1.0, {"momentum": 0.9})
    assert One(shared=3).replace(share=0.1).values == {"shared": 3, "share": 0.1, "names": ["a"]}
    with pytest.raises(TypeError, match="shred"):
        One(shred=3)


def test_a_group_is_read_from_the_values_of_more_flags():
    read = Other.read({"shared": 4, "server_optimizer": "adam", "something_else": 1}, given=["server_optimizer"])
    assert (read.shared, read.share, read.server.name, read.server.learning_rate) == (4, 0.5, "adam", 0.001)


def test_a_setting_has_one_name_and_a_flag_one_setting():
    with pytest.raises(errors.UserError, match=r"Third\.another_name: it is called 'shared'"):
        type("Third", (settings.Group,), {"another_name": SHARED})
    third = type("Third", (settings.Group,), {"shared": settings.Setting(1, "Another one.")})
    with pytest.raises(errors.UserError, match="--shared exists already"):
        settings.union([One, third])


@pytest.mark.parametrize("name", ["values", "parts", "replace"])
def test_a_setting_cannot_hide_what_its_group_needs(name):
    with pytest.raises(errors.UserError, match=f"Third.{name}: Group needs this name"):
        type("Third", (settings.Group,), {name: settings.Setting(1, "A number.")})


def test_a_setting_whose_type_does_not_follow_from_its_default_is_refused():
    with pytest.raises(TypeError, match="default None needs a kind: int"):
        settings.Setting(None, "A number.")


@pytest.mark.parametrize("name", ["verbosity", "help", "scale"])
def test_a_setting_cannot_have_the_name_of_a_flag_that_is_no_setting(name):
    with pytest.raises(errors.UserError, match=f"--{name} exists already"):
        config.define_flag(name, settings.Setting(1, "A number."), flags.FlagValues())


@pytest.mark.parametrize("odd", [One(), int], ids=["an instance", "another class"])
def test_settings_of_a_plugin_that_are_no_class_of_a_group_are_refused(odd):
    with pytest.raises(errors.UserError, match="a class derived from Group is expected"):
        settings.union([One, odd])


def wrong_values(setting):
    """Values that the constraints declared with a setting exclude."""
    if setting.kind is list:
        if setting.choices is not None or setting.item is not None:
            yield ["nothing of this name"]
            yield [first := next(iter(setting.choices or ["0.5"])), first]
        return
    if setting.choices is not None:
        yield "nothing of this name"
    if setting.least is not None:
        yield setting.least - 1
        yield math.nan
    if setting.most is not None:
        yield setting.most + 1
    if setting.positive:
        yield from (0.0, -1.0, math.inf, math.nan)


WRONG = [(name, flag, value) for name, flag in of_runs.all_flags().items() for value in wrong_values(flag)]


@pytest.mark.parametrize(("name", "flag", "value"), WRONG, ids=[f"{name}={value}" for name, _, value in WRONG])
def test_every_declared_constraint_refuses_in_one_line_that_names_the_flag(name, flag, value):
    with pytest.raises(errors.UserError) as refusal:
        flag.checked(value)
    assert str(refusal.value).startswith(f"--{name}")
    assert "\n" not in str(refusal.value)
    assert flag.checked(flag.default) == flag.default


def test_most_settings_declare_constraints():
    constrained = {name for name, _, _ in WRONG}
    assert len(constrained) > 50
    assert {"local_epochs", "ditto_lambda", "server_optimizer", "personalization_learning_rates"} <= constrained


def test_the_choice_that_was_probably_meant_is_named():
    with pytest.raises(errors.UserError, match=r"Did you mean fine_tune\?"):
        of_runs.all_flags()["strategies"].checked(["fine_tun"])
    values = flags.FlagValues()
    config.define_flags(values)
    with pytest.raises(flags.IllegalFlagValueError, match=r"--method=fed_prx: .*Did you mean fed_prox\?"):
        values(["program", "--method=fed_prx"])


def test_a_choice_that_a_plugin_may_add_is_refused_with_the_flag_for_it():
    values = flags.FlagValues()
    config.define_flags(values)
    for flag in ("--method", "--task", "--model", "--aggregator", "--client_optimizer"):
        with pytest.raises(flags.IllegalFlagValueError, match=f"{flag}=mine: .*, or give the --plugin that adds it"):
            values(["program", f"{flag}=mine"])
    with pytest.raises(errors.UserError, match=r"'mine' is unknown; .*, or give the --plugin that adds it"):
        of_runs.all_flags()["strategies"].checked(["mine"])
    for flag in ("--partition", "--client_learning_rate_schedule", "--client_weighting"):
        with pytest.raises(flags.IllegalFlagValueError, match=f"{flag}=mine: choose from [a-z_, ]*\\."):
            values(["program", f"{flag}=mine"])
