"""What `--help` says beside a choice: the flags that the method, strategies, aggregator or source of clients read."""

from absl import flags

from tff_personalization import optimizers
from tff_personalization.experiment import config
from tff_personalization.experiment import settings as settings_lib
from tff_personalization.settings import Group
from tff_personalization.tasks import registry

ASKING = ("--help", "-help", "--?", "-?")


def of_choices(flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """The help of the flags that the given choices read besides what every run reads; "" if none was given."""
    values = {name: flag_values[name].value for name in ("task", *settings_lib.choices())}
    values["client_data"] = values["client_data"] or registry.TASKS[values["task"]].sources.default
    helped = flags.FlagValues()
    texts = []
    for chooser, groups in settings_lib.chosen(values).items():
        if not flag_values[chooser].using_default_value:
            title = f"{config.argument(chooser, values[chooser])} reads"
            read = {name for group in groups for name in _flags_of(group, flag_values)}
            for name in read:
                helped[name] = flag_values[name]
                helped.register_flag_by_module(title, flag_values[name])
            texts.append(helped.module_help(title) if read else f"\n{title}: nothing more")
    return "\n".join(texts)


def _flags_of(group: type[Group], flag_values: flags.FlagValues) -> list[str]:
    """The flags of a group, without the options of optimizers that were not chosen."""
    names = []
    for part in group.parts().values():
        others: tuple[str, ...] = ()
        if isinstance(part, optimizers.Role):
            chosen = flag_values[f"{part.name}_optimizer"].value
            others = tuple(f"{part.name}_{name}_" for name in optimizers.OPTIMIZERS if name != chosen)
        names += [name for name in part.flags() if not name.startswith(others)]
    return names
