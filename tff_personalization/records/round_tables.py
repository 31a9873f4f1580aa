"""The tables that grow with each round, metrics.csv and evaluations.csv: cuts them for a resumed run, and appends."""

import codecs
import itertools
import pathlib
from collections.abc import Mapping

import pandas as pd

from tff_personalization import errors
from tff_personalization.experiment import settings
from tff_personalization.records import files


def keep_until(run: pathlib.Path, config: settings.RunSettings, round_number: int) -> None:
    """Cuts both tables of a run directory to their contents after a round.

    Raises:
        UserError: one of them lacks something of these rounds, or is damaged there.
    """
    every, rows_of_evaluation = config.rounds_per_evaluation, config.personalization_epochs + 1
    evaluated = range(every, round_number + 1, every) if every else ()
    _keep_rows(run / "metrics.csv", dict.fromkeys(range(1, round_number + 1), 1))
    _keep_rows(run / "evaluations.csv", dict.fromkeys(evaluated, rows_of_evaluation))


def _keep_rows(path: pathlib.Path, counts: Mapping[int, int]) -> None:
    """Cuts a table after a number of rows of each round. Refuses it if a row is missing, cut, or out of order."""
    if not counts:
        path.unlink(missing_ok=True)
        return
    content = path.read_bytes() if path.exists() else b""
    lines = content.decode("utf-8-sig", errors="replace").splitlines(keepends=True)
    columns = lines[0].rstrip("\r\n").split(",") if lines else []
    kept = 1 + sum(counts.values())
    rounds = itertools.chain.from_iterable([number] * count for number, count in counts.items())
    for line, (text, number) in enumerate(itertools.zip_longest(lines[1:kept], rounds), start=2):
        cells = (text or "").rstrip("\r\n").split(",")
        whole = text and text.endswith("\n") and len(cells) == len(columns) and "round" in columns
        if not whole or cells[columns.index("round")] != str(number):
            raise errors.UserError(
                f"{path}, line {line}: damaged, a row of round {number} is expected: restore the file, or move "
                f"{path.parent} away and start again."
            )
    if len(lines) > kept or content.startswith(codecs.BOM_UTF8):
        files.write_text(path, "".join(lines[:kept]))


def append_evaluation(path: pathlib.Path, table: pd.DataFrame, round_number: int, split: str) -> None:
    """Appends an evaluation's rows to evaluations.csv. Rows of the same or of later rounds are replaced."""
    text = table.to_csv(index=False)
    if path.exists():
        earlier = pd.read_csv(path, dtype=str, keep_default_na=False)
        rounds = earlier["round"].astype(int)
        keep = (rounds < round_number) | ((rounds == round_number) & (earlier["split"] != split))
        text = earlier[keep].to_csv(index=False) + table.to_csv(index=False, header=False)
    files.write_text(path, text)
