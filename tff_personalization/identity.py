"""The settings that identify a run, for resuming it and for comparing it with others."""

from collections.abc import Mapping
from typing import Any

# Settings that change where or how fast a run computes, but not its results. With `workers`, sums of floats differ in
# their last digits, because parts of a round are merged in the order in which they finish. `cores` gives pooled
# training its number of threads, which a resumed run keeps. A plugin's results depend on its source
# (`plugin_sources`), not on its name in the flag.
WITHOUT_EFFECT_ON_NUMBERS = (
    "cache_dir",
    "output_dir",
    "run_name",
    "cores",
    "workers",
    "require_closed_worker",
    "plots",
    "rounds_per_checkpoint",
    "rounds_per_model",
    "plugin",
    "rounds_from",
)
CLIENT_IDS = ("test_client_ids", "train_client_ids")
"""Settings that are files of client ids."""

_CONSTANT = {"name": "constant", "decay": 1.0, "warmup_rounds": 0}
"""A schedule that keeps the learning rate."""


def with_flags_of_optimizers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run with the flags of its optimizers, such as client_learning_rate, instead of `optimizers`."""
    found = dict(settings)
    for role, spec in (found.pop("optimizers", None) or {}).items():
        found |= {f"{role}_optimizer": spec["name"], f"{role}_learning_rate": spec["learning_rate"]}
        found |= {f"{role}_{spec['name']}_{option}": value for option, value in spec.get("options", {}).items()}
        for part, value in spec.get("schedule", {}).items():
            if value != _CONSTANT[part]:
                found[f"{role}_learning_rate_{part.replace('name', 'schedule')}"] = value
    return found


def of(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a run: the settings that differ from their defaults and may change a result.

    A setting that a later version adds does not change the identity of earlier runs. A file of client data is
    identified by its name; its contents are checked when it is read. A file of client ids is identified by the clients
    that it names (`client_ids_sha256`), and in earlier versions by its path.
    """
    without = {*WITHOUT_EFFECT_ON_NUMBERS, *(CLIENT_IDS if "client_ids_sha256" in settings else ())}
    found = {
        name: value
        for name, value in settings.items()
        if name not in without and (name not in defaults or value != defaults[name])
    }
    if isinstance(found.get("client_data"), str):
        found["client_data"] = found["client_data"].replace("\\", "/").rsplit("/", 1)[-1]
    return found
