"""Tables of the pages in docs/ whose records are in docs/ too.

    python -m tests.docs.tables

Writes each table to its place, between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import contextlib
import io
import pathlib
import re
import textwrap
import types
from collections.abc import Callable

import pandas as pd

from analysis import costs as costs_lib
from analysis import names, runs
from tests.docs import study_tables
from tests.stress import moments
from tff_personalization.programs import report

DOCS = pathlib.Path(__file__).parents[2] / "docs"
RECORDS = DOCS / "reliability"
QUICK = DOCS / "results" / "quick"
PAGES = (
    DOCS.parent / "README.md",
    DOCS / "reliability.md",
    DOCS / "scaling.md",
    DOCS / "comparison.md",
    DOCS / "paper.md",
    DOCS / "paper-femnist.md",
    DOCS / "paper-unipen.md",
)
_KINDS = {
    "kill -9 of the program": "kill -9",
    "SIGTERM": "SIGTERM",
    "SIGHUP": "SIGHUP",
    "Ctrl-C": "Ctrl-C",
    "no more memory for the program": "no memory",
    "disk full": "disk full",
    "kill -9 of the worker": "worker: kill -9",
    "no more memory for the worker": "worker: no memory",
    "worker stopped for 3 s": "worker: stopped 3 s",
}
_MOMENTS = (
    *(moments.STARTING, moments.READING, moments.BUILDING, moments.RESUMING, moments.TRAINING, moments.STAGE_2),
    *(moments.EVALUATING, moments.RECORDING, moments.SAVING, moments.BETWEEN, moments.JUDGING, moments.REPORTING),
)
_EVENTS = {"1 workers": "1 worker", "3 workers": "3 workers, on two cores"}


def quick() -> str:
    """What `make run` prints at its end."""
    config = types.SimpleNamespace(plots=False)
    with contextlib.redirect_stdout(io.StringIO()) as text:
        report.print_report(types.SimpleNamespace(path=QUICK, experiment=types.SimpleNamespace(config=config)))
    figures, _, sentence = text.getvalue().partition("\n\nRun:")[0].strip().rpartition("\n\n")
    page = f"Page:  runs/{runs.read(QUICK).name}/report.html"
    return "\n".join(["```", figures, "", textwrap.fill(sentence, 80), "", page, "```"])


def faults() -> str:
    """By moment and kind: ended with the same numbers / injected, and the most rounds done again."""
    rows = pd.read_csv(RECORDS / "faults.csv")
    return study_tables.markdown(
        pd.DataFrame(
            [_of_moment(moment, rows[rows["moment"] == moment]) for moment in _MOMENTS] + [_of_moment("all", rows)]
        )
    )


def _of_moment(name: str, rows: pd.DataFrame) -> dict[str, str]:
    by_kind = {shown: _survived(rows[rows["kind"] == kind]) for kind, shown in _KINDS.items()}
    lost = rows["rounds_again"].max()
    return {
        "moment": name,
        **by_kind,
        "all": _survived(rows),
        "without a new start": str(rows["ended"].isin(["goes on", "0"]).sum()),
        "lost": "–" if pd.isna(lost) else f"{lost:.0f}",
    }


def _survived(rows: pd.DataFrame) -> str:
    return f"{rows['same_numbers'].sum()}/{len(rows)}" if len(rows) else "–"


def bad_input() -> str:
    """By kind: malformed input given to its reader."""
    rows = pd.read_csv(RECORDS / "bad_input.csv")
    return study_tables.markdown(
        rows[["kind", "tried", "refused", "accepted", "other"]].rename(
            columns={"kind": "input", "refused": "refused in one line", "other": "anything else"}
        )
    )


def bad_commands() -> str:
    """By kind: malformed input given to the program."""
    rows = pd.read_csv(RECORDS / "bad_commands.csv")
    found = {name: rows["found"].eq(name) for name in ("refused", "accepted")}
    judged = rows.assign(**found, other=~(found["refused"] | found["accepted"]))

    def of(name: str, part: pd.DataFrame) -> dict[str, object]:
        counts = part[["refused", "accepted", "other"]].sum()
        return {
            "input": name,
            "tried": len(part),
            "refused in one line": counts["refused"],
            "accepted": counts["accepted"],
            "anything else": counts["other"],
            "longest (s)": f"{part['seconds'].max():.0f}",
            "most memory (MB)": part["megabytes"].max(),
        }

    kinds = [of(kind, part) for kind, part in judged.groupby("kind", sort=False)]
    return study_tables.markdown(pd.DataFrame([*kinds, of("all", judged)]))


def environments() -> str:
    """By environment: how each command ended."""
    rows = pd.read_csv(RECORDS / "environments.csv")
    table = rows.pivot(index="environment", columns="command", values="found").loc[rows["environment"].unique()]
    ended = {"right": "right", "one clear line": "one line"}
    shown = table[list(rows["command"].unique())].fillna("–").map(lambda found: ended.get(found, found))
    every = {"environment": f"all: {len(rows)} tried"}
    for command, found in rows.groupby("command")["found"]:
        counts = found.map(ended).fillna("else").value_counts()
        every[command] = " / ".join(str(counts.get(name, 0)) for name in [*ended.values(), "else"])
    return study_tables.markdown(pd.concat([shown.reset_index(), pd.DataFrame([every])]))


def soak() -> str:
    """By method: runs with faults, and what was left at the end."""
    rows = pd.read_csv(RECORDS / "soak.csv")
    left = [column for column in rows.columns if column.endswith(" left")]

    def of(name: str, part: pd.DataFrame) -> dict[str, object]:
        return {
            "method": name,
            "runs": len(part),
            "faults": int(part["faults"].sum()),
            "ended as their twins": int(part["same_numbers"].sum()),
            "files left": int(part["files_left"].sum()),
        }

    methods = [of(name, part) for name, part in rows.groupby("method", sort=False)]
    every = {**of("all", rows), **{column: str(int(rows[column].max())) for column in left}}
    return study_tables.markdown(pd.DataFrame([*methods, every]).fillna(""))


def fuzz() -> str:
    """By reader: executions of all searches, and whether something was found."""
    rows = pd.read_csv(RECORDS / "fuzz.csv").groupby("reader", sort=False)
    table = rows[["executions", "findings", "seconds"]].sum().reset_index()
    every = {"reader": "all", **table[["executions", "findings", "seconds"]].sum().to_dict()}
    return study_tables.markdown(pd.concat([table, pd.DataFrame([every])]).astype(object))


def scale_out() -> str:
    """By event: the median of its rounds."""
    rows = pd.read_csv(RECORDS / "scale_out.csv").groupby("event", sort=False)
    table = rows[["seconds", "examples_per_second", "workers_afterwards"]].median()
    return study_tables.markdown(
        pd.DataFrame(
            {
                "round": [_EVENTS.get(event, event) for event in table.index],
                "seconds": [f"{value:.1f}" for value in table["seconds"]],
                "examples/s": [f"{value:,.0f}" for value in table["examples_per_second"]],
                "workers afterwards": [f"{value:.0f}" for value in table["workers_afterwards"]],
            }
        )
    )


def memory_rounds() -> str:
    """Resident memory over many rounds."""
    return _memory("memory_rounds.csv", "2,000 rounds, 5 clients a round, round")


def memory_clients() -> str:
    """Resident memory with many clients."""
    return _memory("memory_clients.csv", "10,000 synthetic clients, 1,000 in a cohort, round")


def _memory(file_name: str, corner: str) -> str:
    rows = pd.read_csv(RECORDS / file_name)
    columns = {corner: ["Python (MB)", "TFF's worker (MB)"]}
    for row in rows.itertuples():
        columns[f"{row.round:,}"] = [f"{row.python_mb:,}", f"{row.worker_mb:,}"]
    return study_tables.markdown(pd.DataFrame(columns))


def costs() -> str:
    """A round of each method beside FedAvg's, from one interleaved run; see benchmarks/methods.py."""
    from benchmarks import methods  # these import TensorFlow, which few tables need
    from tff_personalization import methods as all_methods

    rows = []
    for name, row in methods.summarize(pd.read_csv(DOCS / "performance" / "methods.csv")).iterrows():
        method, _, network = str(name).partition("-")
        pooled = all_methods.get(method).pooled  # has no clients
        shown = {
            "method": names.method(method, network),
            "processor time": f"{row['processor time']:.2f} ({row['least']:.2f}–{row['most']:.2f})",
            "all visits": f"{row['visits']:.2f}",
        }
        for way in ("down", "up", "kept"):
            shown[way] = "–" if pooled else costs_lib.millions(1e6 * row[way], "MB") if row[way] else "0"
        rows.append(shown)
    return study_tables.markdown(pd.DataFrame(rows))


TABLES: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        quick,
        faults,
        bad_input,
        bad_commands,
        environments,
        soak,
        fuzz,
        scale_out,
        memory_rounds,
        memory_clients,
        costs,
        study_tables.verdicts,
        study_tables.verdicts_femnist,
        study_tables.claim_map,
        study_tables.table1_femnist,
        study_tables.spread_femnist,
        study_tables.terms_femnist,
        study_tables.personalization_femnist,
        study_tables.server_optimizers_femnist,
        study_tables.second_stages,
        study_tables.femnist,
        study_tables.who_gains_femnist,
        study_tables.k_shot_femnist,
        study_tables.search_femnist,
        study_tables.chosen_femnist,
        study_tables.comparison_femnist,
        study_tables.second_best_femnist,
    )
}


def filled(page: str) -> str:
    """A page with its tables filled in."""

    def place(found: re.Match) -> str:
        return f"{found[1]}\n{TABLES[found[2]]().rstrip()}\n{found[3]}"

    return re.sub(r"(<!-- table: (\w+) -->)\n.*?(<!-- end -->)", place, page, flags=re.DOTALL)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
