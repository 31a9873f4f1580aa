"""Inspects client data before training: what it contains, twelve writers, and what looks wrong.

    python -m tff_personalization.inspect DATA [--html=page.html] [--task=emnist10] [--partition=dirichlet …]
    python -m tff_personalization.inspect --plugin=my_task.py --task=mine

DATA is a value of --client_data; without it, the task's own clients are inspected. The exit status is 1 if the data
cannot be read; findings do not change it.
"""

import sys
from collections.abc import Sequence

import numpy as np
from absl import app, flags

from tff_personalization import errors, plugins, seeds, startup
from tff_personalization.inspect import page, sheet
from tff_personalization.tasks import archives, checks, partitions, registry, sources


def look(options: sources.SourceOptions, catalogue: sources.Catalogue, partition: dict) -> archives.Archive:
    """The archive to inspect, dealt to made-up clients if `partition` is given."""
    archive = sources.load(options, catalogue)
    kind = partition.pop("kind")
    if kind != partitions.NATURAL:
        archive = partitions.deal(archive, seeds.generator(options.seed, "partition"), kind, **partition)
    return archive


def describe(archive: archives.Archive) -> list[str]:
    """Describes the archive, one fact a line."""
    counts = np.bincount(archive.client_index, minlength=len(archive.clients))
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
    values = flags.FLAGS
    task = registry.TASKS[values.task]
    options = sources.SourceOptions(
        client_data=argv[1] if len(argv) > 1 else task.sources.default,
        num_classes=task.num_classes,
        seed=values.seed,
        cache_dir=values.cache_dir,
        num_clients=values.num_clients,
        writer_heterogeneity=values.writer_heterogeneity,
        needs_clients=False,
    )
    partition = {
        "kind": values.partition,
        "clients": values.partition_clients,
        "alpha": values.partition_alpha,
        "classes": values.partition_classes,
    }
    archive = look(options, task.sources, partition)
    lines, found = describe(archive), checks.findings(archive)
    if not archive.has_clients:
        lines.append("The data does not say whose the examples are. To train on them, give --partition.")
    print("\n".join(lines))
    if isinstance(archive, archives.CharacterArchive):
        print(f"\n{sheet.text(archive)}")
    print("\nFindings:" if found else "\nFindings: none.")
    for finding in found:
        print(f"  {finding.kind}: {finding.text}")
    if values.html:
        page.write(values.html, archive, lines, found)
        print(f"\nPage: {values.html}")
    return 0


if __name__ == "__main__":
    startup.quiet(sys.argv)
    with startup.plain_flag_errors():
        plugins.load(sys.argv)
    flags.DEFINE_multi_string("plugin", [], "File or module with a task of your own.")
    flags.DEFINE_enum("task", "emnist62", list(registry.TASKS), "The task that the data is for.")
    flags.DEFINE_string("html", "", "File to write a page with pictures to.")
    flags.DEFINE_string("cache_dir", "", "Where to keep data that was read. Default: the user's cache.")
    flags.DEFINE_integer("seed", 1, "Seed of splits and partitions, as in a run.")
    flags.DEFINE_integer("num_clients", 120, "Writers of DATA=handwriting.")
    flags.DEFINE_float("writer_heterogeneity", 1.0, "How much the writing styles of --client_data=handwriting differ.")
    flags.DEFINE_enum(
        "partition", partitions.NATURAL, list(partitions.CHOICES), "Which client gets which examples, as in a run."
    )
    flags.DEFINE_integer("partition_clients", None, "Number of clients that the partition makes.", lower_bound=2)
    flags.DEFINE_float("partition_alpha", 0.5, "α of a partition.", lower_bound=1e-6)
    flags.DEFINE_integer("partition_classes", 2, "Classes of each client with --partition=pathological.", lower_bound=1)
    app.run(startup.with_plain_errors(main), flags_parser=startup.parse_flags)
