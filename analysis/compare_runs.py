"""One table of several runs: data, initial and personalized accuracy, gain, rounds to the target, speed.

    python -m analysis.compare_runs RUN [RUN ...] [--format=text|csv|markdown|latex] [--over_seeds] [--output=FILE]

A row is a run; with --over_seeds it is the runs that differ only in their seed, as mean (standard deviation).
CSV has each number in its own column, unrounded. The other formats are rounded for reading.
"""

import json
from collections.abc import Collection, Sequence

import pandas as pd
from absl import flags

from analysis import command_line, costs, metric, names, tables
from analysis import runs as runs_lib
from tff_personalization import identity
from tff_personalization.errors import UserError

LAYOUTS = {"text": tables.text, "markdown": tables.markdown, "latex": tables.latex}
FORMATS = ("text", "csv", "markdown", "latex")
_TEXT = ("run", "method", "data", "seed")
_SETTINGS = ("rounds", "target_accuracy")  # columns that are equal in runs that differ only in their seed


def per_run(runs: Sequence[runs_lib.Run]) -> pd.DataFrame:
    """One row per run: run, method, data, seed and unrounded numbers. Standard deviations are over clients."""
    table = pd.DataFrame([_row(run, label) for run, label in zip(runs, runs_lib.labels(runs), strict=True)])
    numbers = table.columns.difference(_TEXT)
    table.attrs["metric"] = metric.of(runs)
    return table.astype(dict.fromkeys(numbers, float))  # None in the record if not reached; missing here


def by_settings(runs: Sequence[runs_lib.Run], apart_from: Collection[str] = ()) -> dict[str, dict[int, runs_lib.Run]]:
    """Groups runs that differ only in their seed: by common settings, then by seed, in the order of the runs.

    Args:
        runs: the runs to group.
        apart_from: other flags that may differ in a group.

    Raises:
        UserError: two runs have the same settings and seed, or data with the same name and other contents.
    """
    runs_lib.check_same_data(runs)
    groups: dict[str, dict[int, runs_lib.Run]] = {}
    for run in runs:
        group = groups.setdefault(settings_without_seed(run, apart_from), {})
        seed = run.config["seed"]
        if seed in group:
            raise UserError(f"{group[seed].directory} and {run.directory}: the same settings and seed; give one")
        group[seed] = run
    return groups


def over_seeds(runs: Sequence[runs_lib.Run]) -> pd.DataFrame:
    """One row per group of runs that differ only in their seed.

    Returns:
        The columns of `per_run`, each result averaged over the group's seeds, and beside each a column
        <result>_sd_over_seeds (missing for a single seed). Rounds to a target are averaged over the seeds that reached
        it; <result>_reached counts these. `seed` lists the seeds, `seeds` counts them.

    Raises:
        UserError: two runs have the same settings and seed, so that one result would count twice, or data with the same
            name and other contents.
    """
    table = per_run(runs)
    table.index = pd.Index([str(run.directory) for run in runs])
    rows = []
    for runs_of in by_settings(runs).values():
        group = table.loc[[str(run.directory) for run in runs_of.values()]]
        first, others = group.iloc[0], len(group) - 1
        row = {"run": f"{first['run']} + {others} more" if others else first["run"]}
        row |= {name: first[name] for name in ("method", "data", *_SETTINGS)}
        row |= {"seed": ", ".join(str(seed) for seed in sorted(group["seed"])), "seeds": len(group)}
        for name in table.columns.difference([*_TEXT, *_SETTINGS], sort=False):
            row |= {name: group[name].mean(), f"{name}_sd_over_seeds": group[name].std(ddof=1)}
            if name.startswith("rounds_to_target"):
                row[f"{name}_reached"] = int(group[name].count())
        rows.append(row)
    averaged = pd.DataFrame(rows)
    averaged.attrs["metric"] = table.attrs["metric"]
    return averaged


def render(table: pd.DataFrame, form: str) -> str:
    """The table of `per_run` or `over_seeds` in one of FORMATS."""
    if form == "csv":
        return table.to_csv(index=False)
    seeds = "seeds" in table
    readable = pd.DataFrame([_readable(row, seeds) for _, row in table.iterrows()])
    spread = "mean (standard deviation over seeds)" if seeds else "mean ± standard deviation over test clients"
    note = f"Accuracies: {spread}. {costs.WALL_TIME_NOTE} {tables.MISSING}: not reached or not recorded."
    return in_layout(form, readable, note, table)


def in_layout(form: str, cells: pd.DataFrame, note: str, table: pd.DataFrame) -> str:
    """Readable cells in one of `LAYOUTS`, with the name of the table's metric."""
    called = table.attrs.get("metric", metric.ACCURACY)
    return LAYOUTS[form](cells.rename(columns=lambda name: metric.named(name, called)), metric.named(note, called))


def _row(run: runs_lib.Run, label: str) -> dict:
    summary, target, times = run.summary, run.summary["rounds_to_target"], run.summary["times"]
    return {
        "run": label,
        "method": run.config["method"],
        "data": f"{run.config['task']}, {run.source}",
        "seed": run.config["seed"],
        "rounds": summary["rounds"],
        "test_clients": summary["test_clients"],
        "initial_accuracy_mean": summary["initial_accuracy"]["mean"],
        "initial_accuracy_sd": summary["initial_accuracy"]["sd"],
        "personalized_accuracy_mean": summary["personalized_accuracy"]["mean"],
        "personalized_accuracy_sd": summary["personalized_accuracy"]["sd"],
        "gain_mean": summary["gain"]["mean"],
        "share_hurt": summary["share_hurt"],
        "target_accuracy": target["target_accuracy"],
        "rounds_to_target_initial": target["initial"],
        "rounds_to_target_personalized": target["personalized"],
        "examples_per_second": times["examples_per_second"],
        "wall_seconds": run.wall_seconds,
    }


def settings_without_seed(run: runs_lib.Run, apart_from: Collection[str] = ()) -> str:
    """The identity of a run without its seed and some other flags, as one comparable text."""
    excluded = {"seed", *apart_from}
    chosen = {name: value for name, value in identity.of(run.config["flags"], {}).items() if name not in excluded}
    return json.dumps([run.config["method"], run.config["task"], run.source, chosen], sort_keys=True)


def _readable(row: pd.Series, seeds: bool) -> dict[str, str]:
    """The cells of one row, rounded for reading."""

    def number(name: str, form: str) -> str:
        # A figure that is the same in all seeds, such as the number of test clients, needs no spread.
        return tables.number(row[name], form, row.get(f"{name}_sd_over_seeds") or None)

    def accuracy(kind: str) -> str:
        mean, spread = number(f"{kind}_accuracy_mean", ".4f"), number(f"{kind}_accuracy_sd", ".4f")
        return mean if seeds else f"{mean} ± {spread}"

    def rounds_to_target(kind: str) -> str:
        cell = number(f"rounds_to_target_{kind}", ".1f" if seeds else ".0f")
        reached = row.get(f"rounds_to_target_{kind}_reached", 0)
        return f"{cell}, {reached} of {row['seeds']} seeds" if seeds and 0 < reached < row["seeds"] else cell

    task, source = row["data"].split(", ", 1)
    return {
        **{name: str(row[name]) for name in _TEXT},
        "method": names.method(row["method"]),
        "data": f"{names.task(task)}, {source}",
        "rounds": number("rounds", "g"),
        "test clients": number("test_clients", "g"),
        "initial accuracy": accuracy("initial"),
        "personalized accuracy": accuracy("personalized"),
        "gain": number("gain_mean", "+.4f"),
        "share hurt": number("share_hurt", ".3f"),
        "target": number("target_accuracy", "g"),
        "rounds to target: initial": rounds_to_target("initial"),
        "rounds to target: personalized": rounds_to_target("personalized"),
        "examples/s": number("examples_per_second", ".0f"),
        "wall time (s)": number("wall_seconds", ".0f"),
    }


def _main() -> None:
    # Defined when the script starts, not on import, so that programs that import the tables keep their own flags.
    form = flags.DEFINE_enum("format", "text", FORMATS, "Format of the table.")
    grouped = flags.DEFINE_bool("over_seeds", False, "Give one row to runs that differ only in their seed.")
    output = flags.DEFINE_string("output", None, "File to write the table to. Default: print it.")

    def main(arguments: Sequence[str]) -> None:
        runs = runs_lib.read_all(arguments)
        command_line.write(render(over_seeds(runs) if grouped.value else per_run(runs), form.value), output.value)

    command_line.run_script(main)


if __name__ == "__main__":
    _main()
