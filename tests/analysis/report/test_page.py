"""The page as a file: self-contained, repeatable, and equal to the records."""

import base64
import html.parser
import json
import re
import subprocess
import sys

import pandas as pd
import pytest

from analysis import claims, outcome
from analysis import runs as runs_lib
from analysis.report import __main__ as report
from analysis.report import page as page_lib
from tests.analysis.report.conftest import NASTY
from tff_personalization.errors import UserError


class Parts(html.parser.HTMLParser):
    """Tags with their attributes, the texts of scripts, and the visible text."""

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.scripts, self.shown, self._inside = [], [], [], None
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self._inside != "style":
            self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())


@pytest.fixture(scope="module")
def source(page):
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parts(source):
    return Parts(source)


def test_the_same_records_give_the_same_bytes_in_another_process(study, source, tmp_path):
    command = [sys.executable, "-m", "analysis.report", str(study), f"--output={tmp_path / 'again.html'}"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stdout == f"{tmp_path / 'again.html'}\n"
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == source


def test_nothing_is_loaded_from_elsewhere(parts):
    for tag, attributes in parts.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            assert re.match(r"data:|#|$", attributes.get(name) or ""), (tag, attributes[name])
    (policy,) = [a["content"] for tag, a in parts.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy


def test_text_from_records_is_text(source, parts):
    assert NASTY not in source
    assert f"My {NASTY}" in parts.text
    scripts = [text for attributes, text in parts.scripts if attributes.get("type") == "application/json"]
    assert all(json.loads(text) is not None for text in scripts)
    assert any(NASTY in client for text in scripts for client in _clients(json.loads(text)))


def _clients(data) -> list[str]:
    return [row[1] for row in data["layout"].get("meta", {}).get("clients", [])] if "layout" in data else []


def test_synthetic_data_is_called_synthetic_and_the_page_claims_no_reproduction(parts):
    assert "synthetic handwriting, 120 writers" in parts.text
    assert "Synthetic data. All of these runs are on generated data" in parts.text
    assert "reproduced" not in parts.text.lower()


def test_every_verdict_has_its_effect_interval_and_reason_and_leads_to_its_section(parts):
    assert "personalized accuracy: +0.0120 [+0.0040, +0.0200]" in parts.text
    assert "The interval is above zero." in parts.text
    for word in (claims.SUPPORTED, claims.NOT_SUPPORTED, claims.UNDECIDED, claims.NO_RUNS):
        assert word in parts.text
    ids = {attributes["id"] for _, attributes in parts.tags if "id" in attributes}
    links = {
        attributes["href"][1:] for tag, attributes in parts.tags if tag == "a" and attributes["href"].startswith("#")
    }
    assert {"fine_tuning-section", "verdict-C2.1", "verdict-C3.1-h-0"} <= links <= ids


def test_each_experiment_has_its_question_tables_figures_and_provenance(parts):
    for text in (
        "What of table1?",
        "4 of 6 planned, 1 unfinished, not shown",
        "--local_epochs=10",
        "Table 1 of the paper.",
    ):
        assert text in parts.text
    figures = [attributes["id"] for tag, attributes in parts.tags if tag == "figure"]
    assert {"table1-by_local_epochs", "table1-gains", "fine_tuning-ranking", "my_own-k_shot"} <= set(figures)
    assert "Not in these records:" in parts.text


def test_what_is_downloaded_is_the_table(study, parts):
    links = {attributes["download"]: attributes["href"] for tag, attributes in parts.tags if "download" in attributes}
    rows = base64.b64decode(links["all-runs.csv"].split(",")[1]).decode().splitlines()
    assert rows[0].startswith("run,experiments,method")
    assert len(rows) == 1 + 8
    assert {"table1-table1.md", "table1-table1.tex", "table1-learning_curves.csv"} <= set(links)


def test_large_files_are_compressed():
    address, ending = page_lib.data_uri("0123456789" * 20_000, "text/csv")
    assert ending == ".gz"
    assert len(address) < 2_000


def test_a_page_that_cannot_be_written_leaves_the_one_that_is_there(study, tmp_path):
    (tmp_path / "file").write_text("something")
    with pytest.raises(UserError, match="--output"):
        report.write(study / "runs" / "slow", tmp_path / "file" / "report.html")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "report.html").write_text("old")
    with pytest.raises(UserError, match="no finished run"):
        report.write(tmp_path / "damaged")
    assert (tmp_path / "damaged" / "report.html").read_text() == "old"


def test_the_page_of_one_run_says_what_it_found_and_how_it_was_made(run_page):
    assert run_page == run_page.parent / "report.html"
    parts = Parts(run_page.read_text(encoding="utf-8"))
    assert outcome.sentence(runs_lib.read(run_page.parent)) in parts.text
    figures = {attributes["id"] for tag, attributes in parts.tags if tag == "figure"}
    assert {"run-before_after", "run-learning_curves", "run-personalization_curves", "run-k_shot"} <= figures
    hurt = runs_lib.read(run_page.parent).summary["share_hurt"]
    assert f"hurt {hurt:.1%} of 10 clients with test examples" in parts.text  # 2 of 12 have none
    for text in ("FedAvg on synthetic handwriting", "--rounds", "over clients", "Writers", "Synthetic data."):
        assert text in parts.text
    for text in ("Verdicts", "All runs", "over seeds, error bars"):
        assert text not in parts.text


@pytest.mark.parametrize("name", ["runs", "run"])
def test_a_folder_of_runs_of_any_name_has_a_whole_page(make_run, name):
    for seed in (1, 2):
        made = make_run(f"{name}/{seed}", seed=seed, method="fed_avg", stages=(("fed_avg", 20),), clients=20)
        summary = json.loads((made / "summary.json").read_text())
        figures = {"personalized_accuracy": {"mean": 0.8}, "gain": {"mean": 0.1}, "share_hurt": 0.1}
        summary["strategies"] = {"fine_tuning": figures, "head_only": figures}
        (made / "summary.json").write_text(json.dumps(summary))
    parts = Parts(report.write(made.parent).read_text(encoding="utf-8"))
    ids = [attributes["id"] for _, attributes in parts.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"runs", "all-runs", f"{name}-section", f"{name}-results", f"{name}-strategies", f"{name}-k_shot"} <= set(
        ids
    )
    links = {attributes["href"][1:] for tag, attributes in parts.tags if tag == "a" and "download" not in attributes}
    assert links == {f"{name}-section", "runs"}


def test_an_unfinished_run_has_no_page_and_the_error_says_how_to_finish_it(make_run):
    with pytest.raises(UserError, match=r"unfinished run .* repeat the command"):
        report.write(make_run(finished=False))


def test_a_run_without_a_client_with_test_examples_has_a_page(make_run):
    path = make_run(release="aggregates") / "summary.json"
    summary, none = json.loads(path.read_text()), {"mean": None, "sd": None}
    figures = {f"{kind}_accuracy": none for kind in ("initial", "personalized")}
    figures |= {"gain": none, "share_gaining": None, "share_hurt": None}
    strategies = dict.fromkeys(("fine_tuning", "head_only"), figures)
    untested = {"test_clients_without_test_data": summary["test_clients"], "strategies": strategies}
    path.write_text(json.dumps(summary | figures | untested))
    histogram = path.with_name("distribution.csv")
    pd.read_csv(histogram).assign(clients=0).to_csv(histogram, index=False)
    shown = Parts(page_lib.build(path.parent)).shown
    assert any("No held-out client has test examples" in text for text in shown)
    assert "– ± – over clients" in shown
