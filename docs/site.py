"""Builds the pages of docs/ as a site, with search, pages from docstrings and an interactive report.

    .venv-docs/bin/python docs/site.py [--to=site]

Needs the packages of requirements-docs.txt; `make docs` installs them. The site loads nothing from elsewhere. Its
search needs a server, such as `python -m http.server --directory site`.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

DOCS = pathlib.Path(__file__).resolve().parent
ROOT = DOCS.parent
# The sections of the API pages, and their modules as `glob` patterns.
PACKAGES = {
    "Methods": "tff_personalization/algorithms/*.py",
    "Baselines": "baselines/*.py",
    "Personalization": "tff_personalization/personalization/*.py",
    "Tasks and data": "tff_personalization/tasks/*.py",
    "Models": "tff_personalization/models/*.py",
    "Shared parts": "tff_personalization/*.py",
    "Experiment": "tff_personalization/experiment/*.py",
    "Records": "tff_personalization/records/*.py",
    "Programs": "tff_personalization/programs/*.py",
    "Analysis": "analysis/*.py",
}
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_WORD = re.compile(r"<code>([^<\s]{1,40})</code>")
_SOURCE = re.compile(r'src="(?P<target>[^"]+)"')


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Builds docs/ as a site.")
    parser.add_argument("--to", type=pathlib.Path, default=ROOT / "site", help="the folder of the site")
    parser.add_argument("--report", type=pathlib.Path, help="a report to show, in place of one of docs/results")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        work = pathlib.Path(place)
        prepare(work, chosen.report)
        environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--config-file={work}/mkdocs.yml"]
        built = subprocess.run(command, env=environment, check=False)
        if built.returncode:
            return built.returncode
        for page in (work / "html").glob("*.html"):  # a browser breaks flags at hyphens, unless site.css forbids it
            page.write_text(
                _WORD.sub(r'<code class="word">\1</code>', page.read_text(encoding="utf-8")), encoding="utf-8"
            )
        shutil.rmtree(chosen.to, ignore_errors=True)
        shutil.copytree(work / "html", chosen.to)
    print(chosen.to / "index.html")
    return 0


def prepare(work: pathlib.Path, report: pathlib.Path | None) -> None:
    """Makes the input of mkdocs in a folder: pages with working links, pictures, and the report."""
    pages = work / "pages"
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.py", "*.yml", "__pycache__", "*.tex"))
    shutil.copy(ROOT / "README.md", pages / "index.md")
    for page in pages.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        original = ROOT / "README.md" if page == pages / "index.md" else DOCS / page.relative_to(pages)
        page.write_text(rewritten(text, original, page, pages), encoding="utf-8")
    for name, pattern in PACKAGES.items():
        (pages / "api").mkdir(exist_ok=True)
        (pages / "api" / f"{_slug(name)}.md").write_text(_api_page(name, pattern), encoding="utf-8")
    if report is None:
        report = work / "report.html"
        subprocess.run(
            [_python(), "-m", "analysis.report", "docs/results/comparison-femnist.zip", f"--output={report}"],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    (pages / "example").mkdir()
    shutil.copy(report, pages / "example" / "report.html")
    (pages / "report_example.md").write_text(
        "# A report to try\n\nThe report of [methods compared on Federated EMNIST](comparison.md), as"
        " `python -m analysis.report` writes it. [Open it in a page of its own](example/report.html).\n\n"
        '<iframe src="example/report.html" title="A report"'
        ' style="width: 100%; height: 80vh; border: 1px solid #8888"></iframe>\n',
        encoding="utf-8",
    )
    settings = (DOCS / "mkdocs.yml").read_text(encoding="utf-8").replace("[ROOT]", f"[{ROOT}]")
    api = "".join(f"\n      - {name}: api/{_slug(name)}.md" for name in PACKAGES)
    (work / "mkdocs.yml").write_text(settings.replace("  - API: API", f"  - API:{api}"), encoding="utf-8")


def rewritten(text: str, original: pathlib.Path, page: pathlib.Path, pages: pathlib.Path) -> str:
    """A page with links that work in the site. Links to folders and to files outside docs/ become plain names."""

    def target(address: str) -> str | None:
        path, _, anchor = address.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return address
        place = (original.parent / path).resolve()
        if place == ROOT / "README.md":
            found = pages / "index.md"
        elif place.is_dir() and (place / "README.md").exists() and place.is_relative_to(DOCS):
            found = pages / place.relative_to(DOCS) / "README.md"
        elif place.is_file() and place.is_relative_to(DOCS):
            found = pages / place.relative_to(DOCS)
        else:
            return None if place.exists() else address  # mkdocs warns of missing files
        return os.path.relpath(found, page.parent) + (f"#{anchor}" if anchor else "")

    def link(match: re.Match) -> str:
        address = target(match["target"])
        if address is not None:
            return f"{match['image']}[{match['text']}]({address})"
        named = (original.parent / match["target"]).resolve()
        shown = named.relative_to(ROOT).as_posix() if named.is_relative_to(ROOT) else match["target"]
        plain = match["text"].strip("`")
        if plain == "file":  # in the tables of methods
            return f"`{shown.removeprefix('tff_personalization/')}`"
        return f"`{plain}`" if plain in shown else f"{match['text']} (`{shown}`)"

    def source(match: re.Match) -> str:
        return f'src="{target(match["target"]) or match["target"]}"'

    parts = re.split(r"(```.*?```)", text, flags=re.DOTALL)  # code is not changed
    return "".join(part if part.startswith("```") else _SOURCE.sub(source, _LINK.sub(link, part)) for part in parts)


def _api_page(name: str, pattern: str) -> str:
    modules = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for path in sorted(ROOT.glob(pattern))
        if not path.name.startswith("_")
    ]
    return f"# {name}\n\n" + "\n".join(f"::: {module}\n" for module in modules)


def _python() -> str:
    """The project's own Python, which has the packages for a report."""
    own = ROOT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
