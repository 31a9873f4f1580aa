"""Which settings make a run another run, for resuming it and for comparing it with others."""

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
)
