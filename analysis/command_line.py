"""Shared parts of the analysis scripts: flags, errors on one line, paths of plots."""

import os
import pathlib
from collections.abc import Callable, Sequence

from absl import flags
from matplotlib.figure import Figure

from analysis import runs as runs_lib
from analysis import style
from tff_personalization import startup
from tff_personalization.records import files, places

# The flags defined here count as flags of the calling script, so that its --help lists them.
flags.disclaim_key_flags()


def run_script(main: Callable[[Sequence[str]], None]) -> None:
    """Parses flags and calls `main` with the positional arguments; exits with status 1 and one line on a UserError."""

    def without_program_name(arguments: Sequence[str]) -> int:
        main(arguments[1:])
        return 0

    startup.run_main(without_program_name)


def define_reference() -> flags.FlagHolder:
    """Defines --reference, for `read_with_reference`."""
    return flags.DEFINE_string("reference", None, "Run directory of the reference. Default: the first run.")


def read_with_reference(arguments: Sequence[str], reference: str | None) -> list[runs_lib.Run]:
    """The runs in the positional arguments. The run that --reference names is the first, if it is given."""
    runs = runs_lib.read_all(arguments)
    if reference is None:
        return runs
    first = runs_lib.read(reference)
    there = os.path.abspath(str(first.directory))
    return [first, *(run for run in runs if os.path.abspath(str(run.directory)) != there)]


def run_plot_script(
    name: str, plot: Callable[[Sequence[runs_lib.Run]], Figure], *, with_reference: bool = False
) -> None:
    """A complete plot script: draws the runs in the positional arguments, and prints the path of the plot.

    Args:
        name: the file name of the plot, without its suffix.
        plot: draws the runs.
        with_reference: whether it has the flag --reference, whose run comes first.
    """
    # Defined when a script starts, not on import, so that programs that import the plots keep their own flags.
    output = flags.DEFINE_string(
        "output",
        None,
        "Image file to write (png, pdf or svg). Default: in RUN/plots; for several runs, in plots/ beside the first.",
    )

    reference = define_reference() if with_reference else None

    def main(arguments: Sequence[str]) -> None:
        runs = read_with_reference(arguments, None if reference is None else reference.value)
        path = default_output(name, runs) if output.value is None else pathlib.Path(output.value)
        print(style.save(plot(runs), path))

    run_script(main)


def write(content: str, output: str | None) -> None:
    """Prints a table, or writes it to the file that --output names and prints the file's path."""
    if output is None:
        print(content, end="")
        return
    print(files.write_named("output", pathlib.Path(output), content))


def default_output(name: str, runs: Sequence[runs_lib.Run]) -> pathlib.Path:
    """The path of plot `name`: in RUN/plots for one run, in plots/ beside the first run for several."""
    place = places.outside(runs[0].directory)
    return (place if len(runs) == 1 else place.parent) / "plots" / f"{name}.png"
