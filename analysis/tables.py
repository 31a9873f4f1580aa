"""Readable cells, and a table of them as plain text, Markdown or LaTeX (pandas would need Jinja2 and tabulate)."""

import pandas as pd

_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"τ": r"$\tau$", "×": r"$\times$"}
_LATEX |= {character: "\\" + character for character in "&%$#_{}"}
MISSING = "–"


def number(value: float | None, form: str, spread: float | None = None) -> str:
    """A number as a cell, with its spread in parentheses if there is one; a dash if the number is None or NaN."""
    if value is None or pd.isna(value):
        return MISSING
    return f"{value:{form}}" + ("" if spread is None or pd.isna(spread) else f" ({spread:{form.lstrip('+')}})")


def text(table: pd.DataFrame, note: str) -> str:
    """`table`, whose cells are strings, aligned with spaces, with `note` under it."""
    rows = [list(table.columns), *table.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, note, ""])


def markdown(table: pd.DataFrame, note: str) -> str:
    """`table`, whose cells are strings, as a Markdown table, with `note` under it."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", note, ""])


def latex(table: pd.DataFrame, note: str) -> str:
    """`table`, whose cells are strings, as a LaTeX tabular, with `note` under it."""
    width = len(table.columns)
    head, *rows = [
        " & ".join(_escaped(cell) for cell in row) + r" \\" for row in [list(table.columns), *table.to_numpy().tolist()]
    ]
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{'l' * width}}}",
        *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule"),
        rf"\multicolumn{{{width}}}{{l}}{{\footnotesize {_escaped(note)}}}",
        r"\end{tabular}",
    ]
    return "\n".join([*lines, ""])


def _escaped(cell: str) -> str:
    return "".join(_LATEX.get(character, character) for character in cell)
