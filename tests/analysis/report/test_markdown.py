"""The report as Markdown: it says the same as the page, and its files exist."""

import re

import pandas as pd
import pytest

from analysis import study as study_lib
from analysis.report import markdown, page, verdicts
from tff_personalization.errors import UserError


@pytest.fixture(scope="module")
def readme(study, tmp_path_factory):
    return markdown.write(study, tmp_path_factory.mktemp("markdown"))


def test_images_and_tables_that_it_names_are_beside_it_and_nothing_else(readme):
    text = readme.read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(([^)]+)\)", text))
    assert named == {path.name for path in readme.parent.iterdir()} - {"README.md"}
    assert any(name.endswith(".png") for name in named)
    for path in readme.parent.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_each_verdict_has_its_row_and_synthetic_data_is_called_so(study, readme):
    rows = [line.split(" | ") for line in readme.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    for judged in verdicts.read(study):
        (row,) = [row for row in rows if row[0] == f"| {judged['id']}" and judged["verdict"] in row[4]]
        assert len(row) == 7
        assert ("synthetic data" in row[1]) == judged["synthetic"]
        if judged["effect"] is not None:
            assert float(row[2]) == pytest.approx(judged["effect"], abs=5e-5)


def test_each_experiment_has_its_section_with_flags_and_runs(study, readme):
    text = readme.read_text(encoding="utf-8")
    for experiment in study_lib.read(study).experiments:
        if experiment.runs:
            section = text.split(f"\n## {experiment.title}\n", 1)[1].split("\n## ", 1)[0]
            assert f"\n{experiment.question}" in section
            assert "\n- finished runs: " in section
            assert all(run.name in section for run in experiment.runs)


def test_tables_are_the_pages(study, readme):
    (first, *_) = page.contents(study)["sections"]
    table = first.tables[0]
    pd.testing.assert_frame_equal(
        pd.read_csv(readme.parent / f"{first.experiment.name}-{table.name}.csv"),
        table.tidy.reset_index(drop=True),
        check_dtype=False,
    )


def test_runs_that_are_not_the_papers_have_a_title_of_their_own(study, readme, tmp_path):
    assert readme.read_text(encoding="utf-8").startswith("# The paper's experiments, smoke scale\n")
    own = markdown.write(study / "runs" / "slow", tmp_path / "own").read_text(encoding="utf-8")
    assert own.startswith("# FedAvg on synthetic handwriting")
    assert "from the records of 1 run. Data" in own


def test_a_folder_that_cannot_be_written_is_one_line(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--markdown: .*give another path"):
        markdown.write(study / "runs" / "slow", tmp_path / "file")
