"""Inspects client data before training: what it contains, twelve writers, and what looks wrong.

    python -m tff_personalization.inspect DATA [--html=page.html] [--task=emnist10] [--partition=dirichlet …]
    python -m tff_personalization.inspect --plugin=my_task.py --task=mine

DATA is a value of --client_data; without it, the task's own clients are inspected. The exit status is 1 if the data
cannot be read; findings do not change it.
"""

import sys
from collections.abc import Sequence

import numpy as np
from absl import flags

from tff_personalization import errors, plugins, startup
from tff_personalization.experiment import config, settings
from tff_personalization.inspect import page, sheet
from tff_personalization.settings import Setting
from tff_personalization.tasks import archives, checks, federated_data, registry

_SETTINGS = (
    *("task", "seed", "cache_dir", "num_clients", "writer_heterogeneity"),
    *("partition", "partition_clients", "partition_alpha", "partition_classes"),
)


def _settings() -> dict[str, Setting]:
    """The command's settings by name, with those that a plugin's source has of its own."""
    found = {name: federated_data.Settings.flags()[name] for name in _SETTINGS}
    for group in settings.choices()["client_data"].values():
        found |= group.flags()
    return found


def describe(archive: archives.Archive) -> list[str]:
    """Describes the archive, one fact a line."""
    counts = archive.counts.sum(axis=0)
    counts = counts[counts > 0]
    test = int(archive.is_test.sum())
    low, middle, high = counts.min(), np.median(counts), counts.max()
    lines = [
        f"{archive.source}",
        *archive.notes,
        f"clients   {len(counts):,}" + (f", {len(archive.held_out):,} of them held out" if archive.held_out else ""),
        f"examples  {len(archive.y):,} ({len(archive.y) - test:,} train, {test:,} test); "
        f"a client has {low:,} to {high:,}, median {middle:g}",
    ]
    if archive.y.ndim == 1:
        of_class = np.bincount(archive.y, minlength=len(archive.classes))
        present = np.flatnonzero(of_class)
        lines.append(f"classes   {len(present)}: " + " ".join(f"{archive.classes[c]}:{of_class[c]:,}" for c in present))
    return lines


def main(argv: Sequence[str]) -> int:
    if len(argv) > 2:
        raise errors.UserError(
            f"{argv[2]!r}: one source of data is expected, with a value of --client_data (see --help)."
        )
    values = {name: flags.FLAGS[name].value for name in _settings()}
    values["client_data"] = argv[1] if len(argv) > 1 else registry.TASKS[values["task"]].sources.default
    chosen = federated_data.Settings.read(values)
    of_source = registry.TASKS[chosen.task].sources.settings_of(chosen.client_data).read(values)
    archive = federated_data.dealt(chosen, federated_data.read(chosen, of_source, needs_clients=False))
    lines, found = describe(archive), checks.findings(archive)
    if not archive.has_clients:
        lines.append("The data does not say whose the examples are. To train on them, give --partition.")
    print("\n".join(lines))
    if isinstance(archive, archives.CharacterArchive):
        print(f"\n{sheet.text(archive)}")
    print("\nFindings:" if found else "\nFindings: none.")
    for finding in found:
        print(f"  {finding.kind}: {finding.text}")
    if path := flags.FLAGS.html:
        page.write(path, archive, lines, found)
        print(f"\nPage: {path}")
    return 0


if __name__ == "__main__":
    with startup.plain_flag_errors():
        plugins.load(sys.argv)
    flags.DEFINE_multi_string("plugin", [], "File or module with a task of your own.")
    flags.DEFINE_string("html", "", "File to write a page with pictures to.")
    for name, setting in _settings().items():
        config.define_flag(name, setting, flags.FLAGS)
    flags.adopt_module_key_flags(config)
    startup.run_main(main)
