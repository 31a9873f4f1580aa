"""Every link and picture of every page has a target."""

import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").glob("*.ipynb")])
_CODE = re.compile(r"^( *)(```|~~~).*?^\1\2|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(
    r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s*(\S+)|(?:src|href)=\"([^\"]+)\"", re.MULTILINE
)


def _text(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return text


def _headings(page):
    """The link fragments of a page's headings, as GitHub makes them."""
    found, text = set(), re.sub(r"^```.*?^```", "", _text(page), flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def links(page):
    """The targets of a page's links and pictures, without those in code."""
    return ["".join(target) for target in _LINK.findall(_CODE.sub("", _text(page)))]


def broken(page):
    """The links of a page whose file or heading does not exist."""
    found = []
    for link in links(page):
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if re.match(r"(https?|mailto):", link):
            continue
        inside = target.is_relative_to(page.parent if ROOT not in page.parents else ROOT)
        if not inside or not target.exists() or (fragment and fragment not in _headings(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    assert broken(page) == []


def test_the_pages_link_to_files_headings_and_pictures():
    found = [link for page in PAGES for link in links(page)]
    for kind in (r"https://", r"[^:#]+\.md$", r"[^:#]+\.md#", r"[^:#]+\.py$", r"[^:#]+\.png$", r"[^:#]+\.zip$"):
        assert any(re.match(kind, link) for link in found), kind


def test_links_that_lead_nowhere_are_found(tmp_path):
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# A title\n## Two words, `code`\n## A title\n```\n# no heading\n```\n")
    page.write_text(
        "# Here\n[a](other.md) [b](other.md#a-title) [c](#here) ![d](<other.md>) [e](other.md#two-words-code)\n"
        "[f](other.md#a-title-1) [g](https://example.org/x#y) `[h](in_code.md)`\n```\n[i](in_block.md)\n```\n"
        "[j](gone.md) [k](other.md#gone) [l](#gone) ![m](gone.png) [n](other.md#no-heading)\n[o]: gone.csv\n"
        '<img src="gone.jpg"> [p](../outside.md) [q](gone.md "title")\n'
    )
    (tmp_path.parent / "outside.md").write_text("")
    assert broken(page) == [
        *("gone.md", "other.md#gone", "#gone", "gone.png", "other.md#no-heading", "gone.csv", "gone.jpg"),
        *("../outside.md", "gone.md"),
    ]


def test_shared_records_are_few_and_small():
    files = [path for path in (ROOT / "docs").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) <= 150
    assert sum(path.stat().st_size for path in files if "results" in path.parts) <= 8_750_000
