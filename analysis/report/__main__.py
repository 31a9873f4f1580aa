"""Writes the report of a study.

    python -m analysis.report DIR [--output=DIR/report.html] [--markdown=FOLDER]

DIR has a folder an experiment, with experiment.json and the directories of its runs, and verdicts.json; see
docs/report.md. A folder of runs will do too.
"""

import contextlib
import os
import pathlib
from collections.abc import Sequence

from absl import flags

from analysis import command_line
from analysis.report import markdown, page
from tff_personalization.errors import UserError


def write(directory: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Writes the report of a study, whole or not at all, and returns its path.

    Args:
        directory: the study's folder.
        output: the file; report.html in the study's folder unless given.

    Raises:
        UserError: there is no finished run in it, a record is damaged, or the file cannot be written.
    """
    directory = pathlib.Path(directory)
    path = directory / "report.html" if output is None else pathlib.Path(output)
    content = page.build(directory)
    temporary = path.with_name(f"{path.name}.temp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(content, encoding="utf-8", newline="")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"--output: {path} cannot be written ({error.strerror}); give another file") from None
    return path


def _main() -> None:
    output = flags.DEFINE_string("output", None, "The page to write; default: report.html in DIR.")

    as_markdown = flags.DEFINE_string(
        "markdown", None, "A folder to write the report to as Markdown too, with images and tables as files."
    )

    def main(arguments: Sequence[str]) -> None:
        if len(arguments) != 1:
            raise UserError("DIR: one folder is expected, as in python -m analysis.report results")
        print(write(arguments[0], output.value))
        if as_markdown.value is not None:
            print(markdown.write(pathlib.Path(arguments[0]), pathlib.Path(as_markdown.value)))

    command_line.run_script(main)


if __name__ == "__main__":
    _main()
