"""Writes the report as Markdown with separate images and tables, for a repository or a paper."""

import pathlib

from analysis import style
from analysis.report import page
from tff_personalization.errors import UserError
from tff_personalization.records import places


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
    names, files = {}, {}
    for section in said["sections"]:
        name = section.experiment.name
        for table in section.tables:
            names[name, table.name] = stem = page.slug(f"{name}-{table.name}")
            files[f"{stem}.csv"], files[f"{stem}.tex"] = table.csv.encode(), table.latex.encode()
        for shown in section.figures:
            names[name, shown.name] = stem = page.slug(f"{name}-{shown.name}")
            files[f"{stem}.png"] = style.as_bytes(shown.drawn, ".png")
    templates = page.environment(autoescape=False)
    templates.filters["cell"] = lambda text: text.replace("|", "\\|")
    text = templates.get_template("template.md").render(**said, names=names)
    try:
        to.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (to / name).write_bytes(content)
        (to / "README.md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--markdown: {to} cannot be written ({error.strerror}); give another folder") from None
    return to / "README.md"
