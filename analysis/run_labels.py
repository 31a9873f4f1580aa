"""Labels that distinguish runs: method, different settings, seed."""

from collections.abc import Sequence
from typing import Any

from analysis import names
from analysis import runs as runs_lib
from tff_personalization import identity

# Names of flags in labels; other flags have their name with spaces.
SHORT = {
    "clients_per_round": "cohort",
    "local_epochs": "E",
    "local_steps": "K",
    "server_optimizer": "server",
    "client_optimizer": "client",
    "server_learning_rate": "server rate",
    "client_learning_rate": "client rate",
    "personalization_optimizer": "personalized with",
    "personalization_learning_rate": "personalization rate",
    "writer_heterogeneity": "heterogeneity",
    "stage_2_round": "switch at",
    "stage_2_server_optimizer": "stage 2 server",
}
_NOT_SHOWN = {*identity.WITHOUT_EFFECT_ON_NUMBERS, "seed", "method"}
_STRATEGIES = "strategies"


def of(runs: Sequence[runs_lib.Run]) -> list[str]:
    """The label of each run in a figure: its given name, or else its method, different settings, and seed."""
    made = differing(runs)
    if len({run.config["seed"] for run in runs}) > 1:
        made = [f"{label} · seed {run.config['seed']}" for label, run in zip(made, runs, strict=True)]
    made = [given(run).get("run_name") or label for label, run in zip(made, runs, strict=True)]
    names_of = runs_lib.labels(runs)
    return [label if made.count(label) == 1 else name for label, name in zip(made, names_of, strict=True)]


def differing(runs: Sequence[runs_lib.Run], label: str = "") -> list[str]:
    """What distinguishes each run: its label or method, and the settings in which runs differ.

    Runs of the same method are labelled by their settings only. Labels are not unique if only the seed differs.
    """
    table = [{name: value for name, value in given(run).items() if name not in _NOT_SHOWN} for run in runs]
    flags = list(dict.fromkeys(flag for row in table for flag in row))
    differ = [flag for flag in flags if len({str(row.get(flag)) for row in table}) > 1]
    # Settings of the evaluation are shown only if nothing else distinguishes two runs.
    made = _labels(runs, table, [flag for flag in differ if flag != _STRATEGIES], label)
    if _STRATEGIES in differ:
        longer = _labels(runs, table, differ, label)
        made = [name if made.count(name) == 1 else long for name, long in zip(made, longer, strict=True)]
    return made


def settings(run: runs_lib.Run) -> dict[str, Any]:
    """Every flag of a run by its name on the command line."""
    return identity.with_flags_of_optimizers(run.config["flags"])


def given(run: runs_lib.Run) -> dict[str, Any]:
    """The flags that were given to a run, without paths of the machine; every flag if that is not recorded."""
    chosen = run.config.get("given") or settings(run)
    return runs_lib.without_paths(chosen)


def setting(flag: str, value: Any) -> str:
    """A setting and its value in a label, where a number has at most six digits."""
    if flag == _STRATEGIES:
        several = value if isinstance(value, list) else [value]
        return f"evaluated with {names.strategy(several[0]) if len(several) == 1 else f'{len(several)} strategies'}"
    called = SHORT.get(flag) or " ".join(map(names.optimizer, flag.split("_")))
    if isinstance(value, float):
        return f"{called} {value:g}"
    return f"{called} {names.optimizer(value) if flag.endswith('_optimizer') else as_text(value)}"


def as_text(value: Any) -> str:
    """A value, as on the command line, with all of its digits."""
    if isinstance(value, list):
        return ",".join(map(as_text, value))
    if isinstance(value, float) and float(short := f"{value:g}") == value:
        return short
    return str(value)


def _labels(runs: Sequence[runs_lib.Run], table: list[dict], flags: list[str], label: str) -> list[str]:
    methods = [run.config["method"] for run in runs]
    one_method = len(set(methods)) == 1
    made = []
    for run, row, method in zip(runs, table, methods, strict=True):
        # A flag given to another method says nothing about this one, which may not read it.
        shown = {flag: row.get(flag, settings(run).get(flag) if one_method else None) for flag in flags}
        parts = [label] if label else [] if one_method and shown else [names.method(method)]
        parts += [setting(flag, value) for flag, value in shown.items() if value is not None]
        made.append(" · ".join(parts or [names.method(method)]))
    return made
