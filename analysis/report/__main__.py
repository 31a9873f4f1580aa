"""Writes the report of a study, or of one run.

    python -m analysis.report DIR [--output=DIR/report.html] [--markdown=FOLDER]

DIR is a finished run, a folder of runs, or a study: a folder for each experiment with experiment.json, the directories
of their runs, and verdicts.json (docs/report.md).
"""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from analysis import command_line
from analysis.report import markdown, page
from tff_personalization.errors import UserError
from tff_personalization.records import files, places


def write(directory: places.Named, output: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Writes the report of a study or a run, whole or not at all, and returns its path.

    Args:
        directory: the folder or zip file of the study, or the run directory.
        output: the file; by default report.html in that folder, or in a folder beside the zip file.

    Raises:
        UserError: it has no finished run, a record is damaged, or the file cannot be written.
    """
    path = places.outside(places.place(directory)) / "report.html" if output is None else pathlib.Path(output)
    return files.write_named("output", path, page.build(directory))


def _main() -> None:
    output = flags.DEFINE_string("output", None, "File to write the page to. Default: report.html in DIR.")

    as_markdown = flags.DEFINE_string(
        "markdown", None, "Folder to write the report to as Markdown too, with images and tables as files."
    )

    def main(arguments: Sequence[str]) -> None:
        if len(arguments) != 1:
            raise UserError("DIR: give one folder, as in python -m analysis.report runs/NAME")
        print(write(arguments[0], output.value))
        if as_markdown.value is not None:
            print(markdown.write(arguments[0], pathlib.Path(as_markdown.value)))

    command_line.run_script(main)


if __name__ == "__main__":
    _main()
