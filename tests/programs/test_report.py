"""The table at the end of a run."""

import types

import pytest

from tff_personalization import errors
from tff_personalization.programs import report


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"rounds": 3', '{"rounds": 3}', '{"personalization_epochs": 3}']
)
def test_a_damaged_summary_is_one_line_and_nothing_is_printed(content, tmp_path, capsys):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(errors.UserError, match=r"summary\.json: damaged .* remove it"):
        report.print_report(types.SimpleNamespace(path=tmp_path))
    assert capsys.readouterr().out == ""
