"""The text of `--help`: the most important flags or, with a choice, the flags that this choice reads."""

from absl import flags

from tff_personalization import optimizers
from tff_personalization.experiment import config
from tff_personalization.experiment import settings as settings_lib
from tff_personalization.settings import Group
from tff_personalization.tasks import registry

ASKING = ("--help", "-help", "--?", "-?")
FIRST_FLAGS = {
    "task": "what is predicted",
    "client_data": "a source or a file of client data; default: the task's own",
    "test_clients": "clients that are held out; default: 900 of every 3,400",
    "validation_clients": "clients that choose strategy, epoch and learning rate",
    "seed": "seeds all random choices",
    "method": "how the global model is trained",
    "rounds": "communication rounds",
    "clients_per_round": "clients in a cohort",
    "local_epochs": "E: passes over a client's data in a round",
    "local_steps": "K: a client's steps in a round, for Reptile and meta-learning",
    "batch_size": "examples in a training step",
    "client_learning_rate": "learning rate of the clients' optimizer; default: 0.02 for sgd",
    "server_optimizer": "the server's optimizer: sgd, adam, …",
    "aggregator": "how model deltas are aggregated: mean, robust, dp, …",
    "strategies": "how the model is personalized, several with commas; default: the method's",
    "personalization_epochs": "epochs of personalization",
    "rounds_per_evaluation": "rounds between evaluations",
    "output_dir": "the folder of run directories",
    "run_name": "the name of the run directory; default: made from the settings",
    "plots": "draw plots and write the page at the end",
}
"""The flags that `--help` shows, each with one line."""


def of_first_flags(flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """The help of `FIRST_FLAGS`, one line each, and how to see the others."""
    lines = []
    for name, text in FIRST_FLAGS.items():
        default = (flag_values[name].default_as_str or "").strip("'")
        shown = f"--{name}={default}" if default else f"--{name}"
        lines.append(f"  {shown:<32} {text}")
    return "\n".join(["Flags that matter most, with their defaults:", "", *lines, "", "--helpfull lists all flags."])


def of_choices(flag_values: flags.FlagValues = flags.FLAGS) -> str:
    """The help of the flags that the given choices read, besides those of every run; "" if none was given."""
    values = {name: flag_values[name].value for name in ("task", *settings_lib.choices())}
    values["client_data"] = values["client_data"] or registry.TASKS[values["task"]].sources.default
    helped = flags.FlagValues()
    texts = []
    for chooser, groups in settings_lib.chosen(values).items():
        # A task chooses the source of its clients too, unless another is given.
        given = {chooser, "task"} if chooser == "client_data" else {chooser}
        if any(not flag_values[name].using_default_value for name in given):
            title = f"{config.argument(chooser, values[chooser])} reads"
            read = {name for group in groups for name in _flags_of(group, flag_values)}
            for name in read:
                helped[name] = flag_values[name]
                helped.register_flag_by_module(title, flag_values[name])
            texts.append(helped.module_help(title) if read else f"\n{title}: nothing more")
    return "\n".join(texts)


def _flags_of(group: type[Group], flag_values: flags.FlagValues) -> list[str]:
    """The flags of a group, without the options of other optimizers than the chosen ones."""
    names = []
    for part in group.parts().values():
        others: tuple[str, ...] = ()
        if isinstance(part, optimizers.Role):
            chosen = flag_values[f"{part.name}_optimizer"].value
            others = tuple(f"{part.name}_{name}_" for name in optimizers.OPTIMIZERS if name != chosen)
        names += [name for name in part.flags() if not name.startswith(others)]
    return names
