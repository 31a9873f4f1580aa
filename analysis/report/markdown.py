"""Writes the report as Markdown with separate images and tables, for a repository or a paper."""

import pathlib

from analysis import style
from analysis.report import page
from tff_personalization.records import files, places


def write(directory: places.Named, to: pathlib.Path) -> pathlib.Path:
    """Writes the report of a study into a folder: README.md, an image of each figure, CSV and LaTeX of each table.

    Args:
        directory: the study's folder or zip file.
        to: the folder, which may be the study's own. Files with the same names are replaced.

    Returns:
        The path of README.md.

    Raises:
        UserError: there is no finished run in the study, a record is damaged, or the folder cannot be written.
    """
    said = page.contents(directory)
    names, contents = {}, {}
    for section in said["sections"]:
        name = section.experiment.name
        for table in section.tables:
            names[name, table.name] = stem = page.slug(f"{name}-{table.name}")
            contents[f"{stem}.csv"], contents[f"{stem}.tex"] = table.csv.encode(), table.latex.encode()
        for shown in section.figures:
            names[name, shown.name] = stem = page.slug(f"{name}-{shown.name}")
            contents[f"{stem}.png"] = style.as_bytes(shown.drawn, ".png")
    templates = page.environment(autoescape=False)
    templates.filters["cell"] = lambda text: text.replace("|", "\\|")
    contents["README.md"] = templates.get_template("template.md").render(**said, names=names).encode()
    for name, content in contents.items():
        files.write_named("markdown", to / name, content)
    return to / "README.md"
