"""The pages as a site: built with warnings as errors, and nothing in it comes from elsewhere."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PYTHON = ROOT / ".venv-docs" / "bin" / "python"


@pytest.mark.skipif(not PYTHON.exists(), reason=".venv-docs is not installed: make docs installs it")
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    (tmp_path / "report.html").write_text("<p>a report</p>")
    command = [str(PYTHON), "docs/site.py", f"--to={tmp_path / 'site'}", f"--report={tmp_path / 'report.html'}"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {"index.html", "running.html", "glossary.html", "methods.html"} <= {page.name for page in pages}
    for page in pages:
        loaded = re.findall(r'(?:<(?:script|img|iframe)[^>]* src|<link[^>]* href)="?(https?:[^" >]+)', page.read_text())
        assert not loaded, page.name
    assert (tmp_path / "site" / "example" / "report.html").read_text() == "<p>a report</p>"
    assert 'src="example/report.html"' in (tmp_path / "site" / "report_example.html").read_text()
    assert "local_epochs" in (tmp_path / "site" / "api" / "methods.html").read_text()
    assert (tmp_path / "site" / "search" / "search_index.json").stat().st_size > 100_000
