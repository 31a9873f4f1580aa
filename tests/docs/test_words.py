"""Pages, help and messages avoid phrases that readers found hard to understand (docs/contributing.md)."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
STUMBLED = re.compile(r"\b(anew|hangs? on|go(?:es)? on|for want of|want of memory|but for|taken apart|so many|alone)\b")
# Quotations of the paper, names of runs in records, and a name in the code.
QUOTED = ("`alone`", "FOMAML's terms alone", "FedSGD's term alone", "initial accuracy alone", "global accuracy alone")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("tff_personalization", "baselines", "analysis")
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
def test_pages_have_none(page):
    text = re.sub(r"<!-- table: \w+ -->.*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert stumbled(text) == []


def test_help_messages_and_docstrings_have_none():
    found = {}
    for path in CODE:
        texts = [
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        if lines := stumbled("\n".join(text for text in texts if text != "alone")):
            found[path.relative_to(ROOT).as_posix()] = lines
    assert found == {}
