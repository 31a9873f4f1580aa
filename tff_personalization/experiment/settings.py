"""The settings of a run that belong to no single method, strategy or aggregator, and the union of all settings."""

from collections.abc import Mapping
from typing import Any

from tff_personalization import aggregators, methods, optimizers, schedules
from tff_personalization.algorithms.method import Method
from tff_personalization.execution import runtime
from tff_personalization.personalization import evaluation, strategies
from tff_personalization.settings import Group, Part, Setting, listing, union
from tff_personalization.tasks import federated_data, partitions, registry


def _number_of_examples(text: str) -> str:
    if text != "all" and int(text) < 0:
        raise ValueError
    return text if text == "all" else str(int(text))


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not 0 < int(port) < 65536:
        raise ValueError
    return text


def _methods() -> dict[str, Method]:
    return {name: methods.get(name) for name in methods.METHODS}


def _networks() -> str:
    of_tasks = "; ".join(f"{name}: {', '.join(task.models)}" for name, task in registry.TASKS.items())
    return f"The network. Default: the task's first. {of_tasks}."


class EvaluationsBetweenRounds(Group):
    """The settings that are read if --rounds_per_evaluation is not 0."""

    evaluation_clients = Setting(
        50,
        "Clients evaluated between rounds: validation clients if there are any, else a fixed sample of test clients.",
        theme="personalization",
        least=1,
    )
    target_accuracy = Setting(
        0.8,
        "The summary names the first evaluated round that reaches this accuracy, or value of the task's metric. "
        "For a metric other than a share of right predictions, the default is 0.8 of the way from worst to best.",
        theme="personalization",
        least=0,
    )


class Rounds(EvaluationsBetweenRounds):
    """The settings of methods with rounds."""

    rounds = Setting(500, "Rounds of training.", least=0)
    rounds_per_evaluation = Setting(
        10, "Rounds between evaluations of the main strategy; 0: only at the end.", theme="personalization", least=0
    )
    rounds_per_checkpoint = Setting(10, "Rounds between checkpoints.", theme="run", least=1)
    rounds_per_model = Setting(
        0,
        "Keep the global model each time this many rounds have passed; 0: keep only the last round's.",
        theme="run",
        least=0,
    )
    rounds_from: Setting[str | None] = Setting(
        None,
        "Finished run whose rounds are reused: all, the first ones, or those before the second stage. Results do not "
        "change. Default: search --output_dir for a run of the same code. none: compute all rounds.",
        theme="run",
        kind=str,
    )
    participants: Setting[int | None] = Setting(
        None,
        "Number of train clients that took part and are evaluated on their own test parts, with the main strategy and "
        "with the model that they keep. Default: as many as test clients if the method's clients keep a model, else 0.",
        theme="personalization",
        kind=int,
        least=0,
    )


class RunSettings(Rounds, federated_data.Settings):
    """The settings of every run."""

    method = Setting("fed_avg", listing("How the global model is trained.", _methods), choices=methods.METHODS)
    model = Setting(None, _networks, kind=str, choices=registry.MODELS)

    strategies: Setting[list[str]] = Setting(
        [],
        listing("Strategies to evaluate, the main one first. Default: the method's.", lambda: strategies.STRATEGIES),
        theme="personalization",
        choices=strategies.STRATEGIES,
    )
    personalization_epochs = Setting(
        5, "Epochs of fine-tuning; each client is evaluated after every epoch.", theme="personalization", least=0
    )
    personalization_examples: Setting[list[str]] = Setting(
        [],
        "Also evaluate with fewer train examples for each test client, such as 0,1,5,20,all. They are drawn at random; "
        "smaller sets are part of larger ones. Default: all.",
        theme="personalization",
        item=(_number_of_examples, "a number of examples, or all"),
    )
    evaluation_release = Setting(
        "records",
        "What clients release: records (one per client) or aggregates (only sums).",
        theme="personalization",
        choices=evaluation.RELEASES,
    )
    evaluation_seed: Setting[int | None] = Setting(
        None,
        "Seeds shuffling, dropout and drawn examples in the final evaluation. Default: --seed.",
        theme="personalization",
        kind=int,
        least=0,
    )

    plugin: Setting[list[str]] = Setting(
        [],
        "Your own module, by name or as the path of a .py file, that registers tasks, methods, strategies, "
        "aggregators or optimizers (docs/extending.md). Separate several with commas, or repeat the flag.",
        theme="run",
        several=True,
    )
    output_dir = Setting("runs", "Folder for run directories.", theme="run")
    run_name = Setting(
        "", "Name of the run directory. Default: made from method, data, seed and settings.", theme="run"
    )
    cores = Setting(0, "Clients trained at once, one core each; 0: all cores.", theme="run", least=0)
    threads_per_client = Setting(
        0,
        "Threads for each client; 0: one thread, or all cores of the run's first start if a round has one client. "
        "Another number changes the last digits of results.",
        theme="run",
        least=0,
    )
    workers: Setting[list[str]] = Setting(
        [],
        "TFF workers on other machines, as host:port,host:port, that compute clients (docs/scaling.md). "
        "Default: a worker process on this machine.",
        theme="run",
        item=(_address, "an address of the form host:port"),
    )
    require_closed_worker = Setting(
        False,
        "Refuse to run if the kernel cannot isolate TFF's worker process from the network (docs/scaling.md).",
        theme="run",
    )
    clients_per_call = Setting(
        runtime.CLIENTS_PER_CALL,
        "Clients sent to TFF's worker at once, about 20 MB of memory each. Larger cohorts are computed in parts.",
        theme="run",
        least=1,
    )
    plots = Setting(True, "Draw plots at the end of the run.", theme="run")


def choices() -> dict[str, dict[str, type[Group]]]:
    """The group of settings of each choice, besides those of every run, by the flag and the choice's name.

    Sources of two tasks may have one name, so a source's name here has the task before it.
    """
    return {
        "strategies": {name: strategy.settings for name, strategy in strategies.STRATEGIES.items()},
        "method": {name: method.settings for name, method in _methods().items()},
        "aggregator": {name: aggregator.settings for name, aggregator in aggregators.AGGREGATORS.items()},
        "client_data": {
            f"{task}/{name}": group
            for task, of_task in registry.TASKS.items()
            for name, group in of_task.sources.settings.items()
        },
        "partition": dict(partitions.SETTINGS),
    }


def all_parts() -> dict[str, Part[Any]]:
    """Every setting and optimizer of the program by name. UserError if a plugin uses an existing name."""
    return union([RunSettings, *(group for of_choices in choices().values() for group in of_choices.values())])


def all_flags() -> dict[str, Setting[Any]]:
    """Every flag of a run by name."""
    return {name: flag for part in all_parts().values() for name, flag in part.flags().items()}


def reader_of_rounds(values: Mapping[str, Any]) -> str:
    """The setting in `Experiment.as_json` that makes the rounds depend on their number; "" if there is none."""
    for role, spec in values["optimizers"].items():
        if spec["schedule"]["name"] in schedules.OF_ALL_ROUNDS:
            return f"--{role}_learning_rate_schedule={spec['schedule']['name']}"
    return "a plugin" if values.get("plugin_sources") else ""


def defaults() -> dict[str, Any]:
    """The default of each setting; None if other settings decide."""
    return {name: part.of({}) for name, part in all_parts().items() if isinstance(part, Setting)}


def roles() -> dict[str, optimizers.Role]:
    """The roles of optimizers by name."""
    return {name: part for name, part in all_parts().items() if isinstance(part, optimizers.Role)}


def read_by(values: Mapping[str, Any]) -> frozenset[str]:
    """The names of the settings that a run reads."""
    groups: list[type[Group]] = [RunSettings, *(group for of_choice in chosen(values).values() for group in of_choice)]
    return frozenset(name for group in groups for name in group.parts())


def unread(chooser: str, values: Mapping[str, Any]) -> frozenset[str]:
    """The flags of the options of a choice, such as those of all strategies, that a run does not read."""
    read = {flag for groups in chosen(values).values() for group in groups for flag in group.flags()}
    return frozenset(flag for group in choices()[chooser].values() for flag in group.flags()) - read


def chosen(values: Mapping[str, Any]) -> dict[str, list[type[Group]]]:
    """The groups that a run reads besides `RunSettings`, by the flag that chooses each."""
    method = methods.get(values["method"])
    has_aggregator = "aggregator" in method.settings.parts()
    source = registry.TASKS[values["task"]].sources.settings_of(values["client_data"])
    return {
        "strategies": [strategies.STRATEGIES[name].settings for name in values["strategies"]],
        "method": [method.settings],
        "aggregator": [aggregators.AGGREGATORS[values["aggregator"]].settings] if has_aggregator else [],
        "client_data": [source],
        "partition": [partitions.SETTINGS[values["partition"]]],
    }
