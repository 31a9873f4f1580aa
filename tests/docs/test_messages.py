"""The lines of docs/troubleshooting.md are those that the program prints."""

import ast
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
CELLS = [line.split(" | ")[1] for line in PAGE.splitlines() if line.startswith("| ")]
LINES = sorted({line for cell in CELLS for line in re.findall(r"`([^`]+)`", cell) if len(line.split()) > 3})
_EXAMPLES = r"\S*[\d/=]\S*|\bA and B\b|x\.npz|numpy|'mine'|\bmine\b|'accuracy'|^SIGINT|\w*Error: "


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]{2,}", text))


@functools.cache
def printed() -> list[set[str]]:
    """The words of the strings of each of the program's files, docstrings aside."""
    found = []
    for path in [
        ROOT / "run_experiment.py",
        *(ROOT / "tff_personalization").rglob("*.py"),
        *ROOT.glob("analysis/*.py"),
    ]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        alone = {node.value for node in nodes if isinstance(node, ast.Expr)}
        constants = [node.value for node in nodes if isinstance(node, ast.Constant) and node not in alone]
        found.append(words(" ".join(text for text in constants if isinstance(text, str))))
    return found


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_page_is_in_the_code(line):
    said = words(re.sub(_EXAMPLES, "", re.sub(r"(--\w+)=\S*", r"\1 ", line)))  # the names of flags stay
    assert said
    assert any(said <= known for known in printed()), said
