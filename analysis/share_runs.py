"""Copies the records of finished runs into one zip file for publication, without checkpoints and machine paths.

    python -m analysis.share_runs RUN [RUN ...] --to=docs/results/mine.zip
    python -m analysis.share_runs STUDY --to=docs/results/mine.zip      # a study of `make paper`, with verdicts

Each run becomes a folder of its name in the zip file. The folder has config.json, summary.json and the run's tables,
with every client that the run recorded. All other scripts here read `mine.zip` like a study or a folder of runs, and
`mine.zip/NAME` like a run. Paths of the machine are cut to their last part. Losses keep seven significant digits, about
the precision of float32: more digits would be a third of the file. The histogram (distribution.csv) is left out if
clients.csv has every client, because these clients give the same histogram. The same records give the same bytes.
"""

import csv
import io
import json
import pathlib
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from analysis import claims, command_line, study
from analysis import runs as runs_lib
from tff_personalization.errors import UserError
from tff_personalization.records import files as whole_files
from tff_personalization.records import places

TABLES = (
    *("metrics.csv", "evaluations.csv", "clients.csv", "by_round.csv", "distribution.csv", "choice.csv", "k_shot.csv"),
    *("decomposition.csv", "chosen_clients.csv", "participants.csv"),
)
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip file
_LONG = re.compile(r"\d+\.\d{7,}(e-?\d+)?")


def of_run(run: runs_lib.Run) -> dict[str, bytes]:
    """The files of a finished run to share, by name.

    Raises:
        UserError: the run is unfinished, or its clients.csv is lost or damaged.
    """
    contents = {"config.json": runs_lib.without_paths(run.config), "summary.json": run.summary}
    files = {f"{run.name}/{name}": _json(content) for name, content in contents.items()}
    tables = {name: run.directory / name for name in TABLES if (run.directory / name).exists()}
    if run.clients is not None:
        tables.pop("distribution.csv", None)
    return files | {f"{run.name}/{name}": _with_short_losses(places.read_text(path)) for name, path in tables.items()}


def of_study(of: study.Study) -> dict[str, bytes]:
    """The files of a study to share: its experiments, their finished runs, and the verdicts."""
    files = {claims.FILE: _json(claims.contents(of))}
    for experiment in of.experiments:
        path = of.directory / experiment.name / study.RECORD
        files[f"{experiment.name}/{study.RECORD}"] = _json(runs_lib.without_paths(places.read_json(path, ())))
    for run in of.runs:
        files |= {f"{study.RUNS}/{name}": content for name, content in of_run(run).items()}
    return files


def write(files: Mapping[str, bytes], to: pathlib.Path) -> pathlib.Path:
    """Writes a zip file, whole or not at all, and returns its path.

    Args:
        files: the files by name.
        to: the zip file; an existing one is replaced.

    Raises:
        UserError: a run in the existing file would be lost, or the file cannot be written.
    """
    if to.suffix != ".zip":
        raise UserError(f"--to: {to} does not end in .zip; give a file name that does")
    if to.exists():
        there = places.place(to)
        for name in zipfile.Path(to).root.namelist():
            if name.endswith("/config.json") and json.loads(files.get(name, b"null")) != places.read_json(
                there / name, ()
            ):
                raise UserError(f"--to: {to} has another run, {name.split('/')[-2]}; give another file, or remove it")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_LZMA)
    return whole_files.write_named("to", to, stream.getvalue())


def _with_short_losses(table: str) -> bytes:
    """A CSV table with losses of seven significant digits; all else stays as it is."""
    rows = list(csv.reader(io.StringIO(table)))
    losses = {column for row in rows[:1] for column, name in enumerate(row) if "loss" in name}
    shortened = io.StringIO()
    csv.writer(shortened, lineterminator="\n").writerows(
        [_LONG.sub(_shorter, cell) if column in losses else cell for column, cell in enumerate(row)] for row in rows
    )
    return shortened.getvalue().encode()


def _shorter(number: re.Match[str]) -> str:
    return f"{float(number[0]):.7g}"


def _json(contents: Any) -> bytes:
    return (json.dumps(contents, indent=2) + "\n").encode()


def _main() -> None:
    # Defined when the script starts, not on import, so that programs that import it keep their own flags.
    to = flags.DEFINE_string("to", None, "Zip file to write.", required=True)

    def main(arguments: Sequence[str]) -> None:
        studies = [place for place in arguments if study.is_study(place)]
        runs = [place for place in arguments if place not in studies]
        parts = [of_study(study.read(place)) for place in studies]
        parts += [of_run(run) for run in (runs_lib.read_all(runs) if runs or not studies else ())]
        files: dict[str, bytes] = {}
        for part in parts:
            twice = sorted(files.keys() & part.keys())
            if twice:
                raise UserError(f"{twice[0]}: the name of two runs or studies; share them in two files")
            files |= part
        path = write(files, pathlib.Path(to.value))
        count, with_clients = (
            sum(name.endswith(f"/{end}") for name in files) for end in ("config.json", "clients.csv")
        )
        print(f"{path}: {count} runs; all test clients are in the records of {with_clients} of them")

    command_line.run_script(main)


if __name__ == "__main__":
    _main()
