"""The notebook still runs, and gives its recorded output."""

import contextlib
import io
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CELLS = [
    cell for cell in json.loads((ROOT / "docs" / "walk.ipynb").read_text())["cells"] if cell["cell_type"] == "code"
]


def test_every_cell_gives_what_is_printed_below_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    names, compared = {}, 0
    for cell in CELLS:
        lines = [line for line in "".join(cell["source"]).splitlines() if not line.startswith("%")]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            last = next((place for place in range(len(lines) - 1, 0, -1) if not lines[place].startswith((" ", ")"))), 0)
            exec(compile("\n".join(lines[:last]), "walk.ipynb", "exec"), names)  # noqa: S102  # the project's own cells
            value = _value("\n".join(lines[last:]), names)
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                assert printed.getvalue() == "".join(output["text"])
                compared += 1
            elif "text/html" in output["data"]:  # a table
                assert repr(value) == "".join(output["data"]["text/plain"])
                compared += 1
    assert compared == 5


def _value(expression, names):
    return eval(compile(expression, "walk.ipynb", "eval"), names)  # noqa: S307


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell["id"])
def test_no_cell_was_left_with_an_error_or_without_its_figure(cell):
    assert cell["execution_count"]
    assert all(output["output_type"] != "error" for output in cell["outputs"])
    if ".plot(" in "".join(cell["source"]):
        assert any("image/png" in output.get("data", {}) for output in cell["outputs"])
