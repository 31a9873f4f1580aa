"""Reads records from folders and from zip files with the same contents.

`records.zip/RUN` names the folder RUN in a zip file. It is read like the folder `records/RUN`.
"""

import io
import json
import math
import os
import pathlib
import re
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tff_personalization import metrics
from tff_personalization.errors import OF_ZIP_FILES, UserError

# Columns that hold text; every other required column holds numbers.
TEXT_COLUMNS = frozenset({"stage", "split", "strategy", "client"})

# Columns that hold shares, and numbers of something, if the table has them.
METRIC = (
    *("accuracy", "accuracy_mean", "accuracy_weighted_mean", "initial_accuracy", "personalized_accuracy"),
    "train_accuracy",
)
SHARES = ("share_gaining", "share_hurt")
COUNTS = ("round", "epoch", "clients", "examples", "train_examples", "test_examples", "test_predictions", "correct")
LATER_COUNTS = ("extra_examples",)  # empty in rows that an earlier version wrote

_INTEGER = re.compile(r"\s*[+-]?\d{1,18}\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|[+-]?inf", re.ASCII)
_ROUNDING = 1e-5  # of an accuracy in single precision


class _InZip(zipfile.Path):
    """A folder or file in a zip file, which compares and prints like a `pathlib.Path`."""

    def __str__(self) -> str:
        return super().__str__().rstrip("/")

    def exists(self) -> bool:
        return self.is_dir() or super().exists()  # the zip file itself is a folder

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _InZip) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


Place = pathlib.Path | zipfile.Path
Named = str | os.PathLike[str] | zipfile.Path


def place(path: Named) -> Place:
    """The path itself, or the folder or file in a zip file that the path names, such as `records.zip/RUN`.

    Raises:
        UserError: the zip file is damaged.
    """
    if isinstance(path, zipfile.Path):
        return path
    path = pathlib.Path(path)
    for outer in (path, *path.parents):
        if outer.suffix == ".zip" and outer.is_file():
            try:
                return _InZip(outer).joinpath(*path.relative_to(outer).parts)
            except OF_ZIP_FILES as error:
                raise UserError(f"{outer}: not a zip file ({error}): restore it.") from None
    return path


def folders_with(directory: Place, name: str) -> list[Place]:
    """The folders in `directory` that hold a file `name`, by their names."""
    if not directory.is_dir():
        return []
    return sorted((folder for folder in directory.iterdir() if (folder / name).exists()), key=str)


def outside(path: Place) -> pathlib.Path:
    """Where to write files that belong to a folder: into it, or for `records.zip/RUN` into the folder `records/RUN`."""
    if isinstance(path, pathlib.Path):
        return path
    outer = pathlib.Path(str(path.root.filename))
    return outer.with_suffix("") / pathlib.Path(str(path)).relative_to(outer)


def read_bytes(path: Place) -> bytes:
    """The bytes of the file `path`; UserError when it cannot be read."""
    try:
        return path.read_bytes()
    except OF_ZIP_FILES as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}): restore it, or repeat the run.") from None


def read_text(path: Place) -> str:
    """The text in `path`; UserError when it cannot be read or is not text."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text ({error}): restore it, or repeat the run.") from None


def read_json(path: Place, keys: Iterable[str]) -> dict[str, Any]:
    """The JSON object in `path`; UserError when it is malformed or lacks one of `keys`."""
    try:
        contents = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}): restore it, or repeat the run.") from None
    missing = [key for key in keys if not isinstance(contents, dict) or key not in contents]
    if missing:
        raise UserError(f"{path}: no {missing[0]!r} in it: restore it, or repeat the run.")
    return contents


def read_csv(
    path: Place,
    columns: Iterable[str],
    text_columns: frozenset[str] = TEXT_COLUMNS,
    metric: metrics.Metric = metrics.ACCURACY,
) -> pd.DataFrame:
    """The table in `path`; UserError when it is malformed, cut short, or lacks one of `columns` or numbers in it."""
    text = read_text(path)
    try:
        # Read as text first, because a client may be called "NA" or "007".
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except ValueError as error:  # of which pandas' ParserError and EmptyDataError are kinds
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a CSV table ({reason}): restore it, or repeat the run.") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"{path}: line 2: more cells than the header has names: restore it, or repeat the run.")
    for column in columns:
        if column not in table:
            raise UserError(f"{path}: no column {column!r}: restore it, or repeat the run.")
    quantiles = [column for column in table.columns if column.startswith("accuracy_q")]
    checked = {*columns, *METRIC, *SHARES, *COUNTS, *LATER_COUNTS, *quantiles}
    numeric = [column for column in table if column not in text_columns]
    for column in numeric:
        texts = table[column].to_numpy()
        values = numbers(texts)
        wrong = np.flatnonzero(np.isnan(values) & (texts != "") & (texts != "nan"))
        if not wrong.size:
            table[column] = values
        elif column in checked:
            value, line = texts[wrong[0]], wrong[0] + 2  # line 1 is the header
            raise UserError(f"{path}: column {column!r}, line {line}: {value!r} is not a number: restore it.")
    for names, most in (([*METRIC, *quantiles], metric.upper), (SHARES, 1.0)):
        for column in table.columns.intersection(names):
            values = table[column].to_numpy()
            outside_range = (values < 0) | (values > (1 + _ROUNDING) * most)
            _refuse(path, table, column, outside_range, f"is not within 0 and {most:g}")
    counts = COUNTS if metric.is_share else [name for name in COUNTS if name != "correct"]
    for column in (*counts, *LATER_COUNTS):
        if column in numeric:
            values = table[column].to_numpy()
            absent = np.isnan(values) & (column in LATER_COUNTS)
            _refuse(path, table, column, ((values < 0) | (values % 1 != 0)) & ~absent, "is not a number of something")
    if "correct" in table:
        _check_scores(path, table, metric)
    if not text.endswith("\n"):  # a number cut in half is still a number
        raise UserError(f"{path}: line {len(table) + 1}: cut short: restore it, or repeat the run.")
    return table


def numbers(texts: Sequence[str]) -> np.ndarray:
    """The numbers that texts write, as integers if all are; NaN where a text writes none.

    Python parses them. Pandas' own parsers can be wrong in the last digit. They also read outside their memory if an
    exponent has many digits, and that can end the process.
    """
    if all(map(_INTEGER.fullmatch, texts)):
        return np.array([int(text) for text in texts], np.int64)
    return np.array([float(text) if _NUMBER.fullmatch(text) else math.nan for text in texts])


def _check_scores(path: Place, table: pd.DataFrame, metric: metrics.Metric) -> None:
    """Refuses more right answers than predictions, and an accuracy that is not their quotient."""
    predictions = next((table[name] for name in ("test_predictions", "test_examples") if name in table), None)
    if predictions is None:
        return
    if metric.is_share:
        _refuse(path, table, "correct", (table["correct"] > predictions).to_numpy(), "is more than the predictions")
    if "accuracy" in table:
        share = table["correct"] / predictions.where(predictions > 0)
        wrong = ((table["accuracy"] - share).abs() > _ROUNDING * metric.upper).to_numpy()
        what = "share of right answers" if metric.is_share else "mean score"
        _refuse(path, table, "accuracy", wrong, f"is not the {what} (correct / predictions)")


def _refuse(path: Place, table: pd.DataFrame, column: str, wrong: np.ndarray, why: str) -> None:
    """Raises a UserError that names the first line of a table with an impossible value in a column."""
    if wrong.any():
        row = wrong.argmax()
        value, line = table[column].iloc[row], row + 2  # line 1 is the header
        raise UserError(f"{path}: column {column!r}, line {line}: {value:g} {why}: restore it, or repeat the run.")
