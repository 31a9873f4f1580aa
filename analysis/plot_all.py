"""Every plot of a run, written into its plots/ directory.

    python -m analysis.plot_all RUN [RUN ...]

Plots that need a missing record, such as per-client accuracies, are left out.
"""

import pathlib
from collections.abc import Sequence

from absl import logging

from analysis import (
    accuracy_distributions,
    before_after,
    client_scatter,
    command_line,
    decomposition,
    gain_by_examples,
    k_shot,
    learning_curves,
    personalization_epochs,
    style,
)
from analysis import runs as runs_lib
from tff_personalization.records import files, places

_PLOTS = {
    "learning_curves": learning_curves.plot,
    "before_after": before_after.plot,
    "accuracy_distributions": accuracy_distributions.plot,
    "client_scatter": client_scatter.plot,
    "gain_by_examples": gain_by_examples.plot,
    "personalization_epochs": personalization_epochs.plot,
    "k_shot": k_shot.plot,
    "decomposition": decomposition.plot,
}


def plot_run(run_directory: places.Named) -> list[pathlib.Path]:
    """Writes every plot that a finished run's records allow, and returns their paths.

    A plot without its record is left out, with a line in the log. Per-client accuracies are missing if the run released
    only aggregates, learning curves if it was never evaluated.

    Raises:
        UserError: not a run directory, unfinished run, or malformed record.
        OSError: a plot cannot be written.
    """
    run = runs_lib.read(run_directory)
    _ = run.summary  # refuses an unfinished run before anything is written
    written = []
    for name, plot in _PLOTS.items():
        try:
            figure = plot([run])
        except runs_lib.NotRecordedError as reason:
            logging.info("Plot %s left out: %s", name, reason)
            continue
        path = command_line.default_output(name, [run])
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, style.as_bytes(figure, path.suffix))
        written.append(path)
    return written


def _main(arguments: Sequence[str]) -> None:
    for run in runs_lib.read_all(arguments):
        for path in plot_run(run.directory):
            print(path)


if __name__ == "__main__":
    command_line.run_script(_main)
