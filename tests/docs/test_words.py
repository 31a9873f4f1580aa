"""Pages, help, messages, comments and the names of tests avoid phrases that readers found hard to understand.

The phrases are those of docs/contributing.md.
"""

import ast
import io
import pathlib
import re
import tokenize
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
STUMBLED = re.compile(r"\b(anew|hangs? on|go(?:es)? on|for want of|want of memory|but for|taken apart|so many|alone)\b")
RECORDED = ("alone", "goes on")  # values in records, and a name in the code
# Quotations of the paper, and names of runs in records.
QUOTED = ("`alone`", "FOMAML's terms alone", "FedSGD's term alone", "initial accuracy alone", "global accuracy alone")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("tff_personalization", "baselines", "analysis", "tests")
CODE = [
    ROOT / "run_experiment.py",
    *(path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))),
]


def stumbled(text: str) -> list[str]:
    """The lines that have one of the phrases."""
    for quotation in QUOTED:
        text = text.replace(quotation, "")
    return [line.strip() for line in text.splitlines() if STUMBLED.search(line)]


def test_a_phrase_is_found_and_a_quotation_is_not():
    assert stumbled("It hangs on x.\nIt depends on x.") == ["It hangs on x."]
    assert not stumbled("FOMAML's terms alone")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_do_not_have_the_phrases(page):
    text = re.sub(r"<!-- table: \w+ -->.*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert stumbled(text) == []


def test_help_messages_docstrings_comments_and_names_of_tests_do_not_have_the_phrases():
    found = {}
    for path in set(CODE) - {pathlib.Path(__file__)}:
        if lines := stumbled("\n".join(_texts(path.read_text(encoding="utf-8")))):
            found[path.relative_to(ROOT).as_posix()] = lines
    assert found == {}


def _texts(code: str) -> Iterator[str]:
    """The strings, comments and names of tests in a module."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in RECORDED:
            yield node.value
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name.replace("_", " ")
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
