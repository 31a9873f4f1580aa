"""Which settings make a run another run, for resuming it and for comparing it with others."""

from collections.abc import Mapping
from typing import Any

# Settings that change where or how fast a run happens, never a number in it.
# A plugin's source has one: `plugin_sources`; how the flag names it has none.
WITHOUT_EFFECT_ON_NUMBERS = (
    "cache_dir",
    "output_dir",
    "run_name",
    "cores",
    "workers",
    "plots",
    "rounds_per_checkpoint",
    "rounds_per_model",
    "plugin",
    "rounds_from",
)


def of(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run the run it is: the settings that are not at their defaults, without those that change no number.

    A setting that a later version adds leaves earlier runs what they were. A file of client data is known by its name;
    that it has the same contents is checked when it is read.
    """
    found = {
        name: value
        for name, value in settings.items()
        if name not in WITHOUT_EFFECT_ON_NUMBERS and (name not in defaults or value != defaults[name])
    }
    if isinstance(found.get("client_data"), str):
        found["client_data"] = found["client_data"].replace("\\", "/").rsplit("/", 1)[-1]
    return found
