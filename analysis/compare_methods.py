"""Compares each method and strategy with a reference: one table of several runs, over the same test clients.

    python -m analysis.compare_methods RUN [RUN ...] [--reference=RUN] [--format=…] [--output=FILE]

The reference is the main strategy of one run, such as FedAvg with fine-tuning: the first run, or that of --reference.
Runs that differ only in their seed and strategies are one method. Each strategy is a row, over the seeds that have it.
A row is compared with the reference client by client, in runs of the same seed, which have the same test clients. Its
other figures are those of its own seeds. If rows have only some of the reference's seeds, the reference has a second
row over these seeds. The interval of the difference and the verdict ("ahead", "behind", "no difference that matters")
are those of `inference`, after Holm's correction for all rows with three seeds. The variance of seeds is pooled over
methods. Strategies on the reference's own models, and rows that vary far more than most, keep their own.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from absl import flags

from analysis import command_line, compare_runs, costs, inference, metric, names, run_labels, tables
from analysis import runs as runs_lib
from tff_personalization import identity
from tff_personalization.errors import UserError

WORST_SHARE = 0.1  # of clients
MARGIN = 0.01  # of the metric's largest value, 1 for accuracy: a difference within ± this one does not matter
REFERENCE, AHEAD, BEHIND, NO_DIFFERENCE = "reference", "ahead", "behind", "no difference that matters"
UNDECIDED, FEW_SEEDS = "undecided", f"fewer than {inference.LEAST_SEEDS} seeds"
_COSTS = ("all visits", "down", "up", "kept")  # columns
_FAR = 4  # times the median variance
_LONGEST = 32  # characters of the settings in a label
_NOT_SHOWN = {*identity.WITHOUT_EFFECT_ON_NUMBERS, "method", "model", "seed", "strategies"}


def worst_mean(accuracies: np.ndarray, of: runs_lib.Metric) -> float:
    """The mean of the worst tenth of some accuracies (at least one of them)."""
    count = math.ceil(WORST_SHARE * len(accuracies))
    ascending = np.sort(accuracies)
    return float((ascending if of.higher_is_better else ascending[::-1])[:count].mean())


def compare(runs: Sequence[runs_lib.Run]) -> pd.DataFrame:
    """One row per method, its settings, and strategy. The first is the reference: the main strategy of the first run.

    Then follows the reference over the seeds of other rows, once for each such set of seeds.

    Returns:
        method; network, if it is not the reference's; settings (flags that differ from the reference's, or else from
        those of another row of the method);
        strategy; seeds (their number) and which_seeds (in words); initial_accuracy and personalized_accuracy, after all
        epochs, with their standard deviations over clients; difference to the reference's personalized accuracy,
        positive where it is better, with difference_low and difference_high, and `judged`, its verdict; share_hurt;
        worst_accuracy, of the worst tenth of clients;
        participants_accuracy and kept_accuracy, of participants with the strategy and with the models that they keep,
        if they were evaluated (only in the main strategy's row); wall_seconds; the costs of training, see `costs.of`.
        All are averaged over seeds.

    Raises:
        UserError: a run has no per-client records, the reference lacks a seed, has other clients, or a run is given
            twice.
    """
    judged_by = metric.of(runs)  # one, so that there is something to compare
    groups = compare_runs.by_settings(runs, apart_from=["strategies"])
    reference = next(iter(groups.values()))  # that of the first run
    main = runs[0].summary["strategy"]
    whole, others = {}, []
    for group in groups.values():
        strategies = {seed: _strategies(run) for seed, run in sorted(group.items())}
        for strategy in dict.fromkeys(name for of_seed in strategies.values() for name in of_seed):
            runs_of = {seed: group[seed] for seed in strategies if strategy in strategies[seed]}
            if group is reference and strategy == main:
                whole = runs_of
            else:
                others.append((runs_of, strategy))
    rows = [_row(runs_of, strategy, reference, main) for runs_of, strategy in others]
    parts = dict.fromkeys(tuple(runs_of) for runs_of, _ in others if runs_of.keys() != whole.keys())
    of_reference = [
        _row(runs_of, main, reference, main)
        for runs_of in (whole, *({seed: reference[seed] for seed in part} for part in parts))
    ]
    for row in of_reference:  # no interval, because others are compared with it
        row |= {"difference_low": math.nan, "difference_high": math.nan, "judged": REFERENCE}
    own_models = set(map(id, reference.values()))
    _pool_variance(of_reference[0], [row for row in rows if id(row["first"]) not in own_models])
    for row in rows:
        row["difference_low"], row["difference_high"] = row["estimate"].interval()
    _judge(rows, MARGIN * judged_by.upper)
    _tell_apart([*of_reference, *rows])
    table = pd.DataFrame([*of_reference, *rows]).drop(columns=["estimate", "first", "means"])
    table.attrs["metric"] = judged_by
    return table


def _pool_variance(reference: dict, rows: list[dict]) -> None:
    """Gives the estimates of other methods' rows the variance of seeds of all methods, which has more freedom.

    It is that of the methods' main strategies. A row that varies far more than most, as when a seed diverged, is left
    out and keeps its own variance.
    """
    variances = {place: row["estimate"].error ** 2 * row["seeds"] for place, row in enumerate(rows) if row["seeds"] > 1}
    limit = _FAR * np.median([*variances.values()]) if variances else 0
    usual = [rows[place] for place, variance in variances.items() if variance <= limit]
    mains = [row for row in usual if row["strategy"] == row["first"].summary["strategy"]]
    variance, freedom = inference.variance_of_seeds(pd.DataFrame([row["means"] for row in (reference, *mains)]))
    for row in usual:
        if freedom >= row["estimate"].freedom:
            error = math.sqrt(2 * variance / row["seeds"])
            row["estimate"] = dataclasses.replace(row["estimate"], error=error, freedom=freedom)


def _judge(rows: list[dict], margin: float) -> None:
    """Gives each row a verdict on its difference, after Holm's correction. Rows need three seeds for that."""
    judged = [row for row in rows if row["seeds"] >= inference.LEAST_SEEDS]
    raw = []
    for row in rows:
        row["judged"] = UNDECIDED if row["seeds"] >= inference.LEAST_SEEDS else FEW_SEEDS
    for row in judged:
        of = row["estimate"]
        raw.append({AHEAD: of.p_above(0), BEHIND: of.p_below(0), NO_DIFFERENCE: of.p_within(margin)})
    best = [min(p_values.values()) for p_values in raw]
    for row, p_values, p, corrected in zip(judged, raw, best, inference.holm(best), strict=True):
        found = [word for word, value in p_values.items() if value * corrected / p <= 1 - inference.CONFIDENCE]
        if found:
            row["judged"] = found[0]


def _tell_apart(rows: list[dict]) -> None:
    """Adds to rows of one method and the same settings, but of different runs, the flags in which these differ."""
    alike: dict[tuple[str, ...], dict[str, runs_lib.Run]] = {}
    for row in rows:
        identity_of_row = compare_runs.settings_without_seed(row["first"], ["strategies"])
        alike.setdefault((row["method"], row["network"], row["settings"]), {})[identity_of_row] = row["first"]
    for row in rows:
        others = alike[row["method"], row["network"], row["settings"]].values()
        flags_of_row = [flag for other in others for flag in _different(row["first"], other)]
        row["settings"] = " ".join([*filter(None, [row["settings"]]), *dict.fromkeys(flags_of_row)])


def reference_first(runs: Sequence[runs_lib.Run]) -> list[runs_lib.Run]:
    """The runs with a usual reference first: FedAvg's run with the most strategies, and of these with fewest flags."""

    def rank(run: runs_lib.Run) -> tuple[bool, int, int]:
        flags_given = len(run.config.get("given", {}))
        return run.config["method"] != "fed_avg", -len(run.summary["strategies"]), flags_given

    first = min(runs, key=rank)
    return [first, *(run for run in runs if run is not first)]


def row_labels(table: pd.DataFrame) -> list[str]:
    """A label of each row: its method, with settings, cut if long, and strategy where another row of it has others."""
    labels = []
    for _, row in table.iterrows():
        same = table[(table["method"] == row["method"]) & (table["network"] == row["network"])]
        parts = [names.method(row["method"], row["network"])]
        if same["settings"].nunique() > 1:
            parts.append(row["settings"] if len(row["settings"]) <= _LONGEST else f"{row['settings'][: _LONGEST - 1]}…")
        if same["strategy"].nunique() > 1:
            parts.append(f"· {names.strategy(row['strategy'])}")
        labels.append(" ".join(filter(None, parts)))
    return labels


def render(table: pd.DataFrame, form: str, without: Sequence[str] = ()) -> str:
    """The table of `compare` in one of `compare_runs.FORMATS`. For reading, some columns may be left out."""
    if form == "csv":
        return table.to_csv(index=False)
    for column, of in (("participants", "participants_accuracy"), ("own model", "kept_accuracy")):
        if table[of].isna().all():
            without = [*without, column]
    if table[list(costs.NAMES)].isna().all(axis=None):
        without = [*without, *_COSTS]
    cells = pd.DataFrame([_readable(row) for _, row in table.iterrows()]).drop(columns=list(without))
    judged_by = table.attrs["metric"]
    side = "" if judged_by.higher_is_better else ", with the sign changed: positive is better"
    note = (
        "Accuracies: mean ± standard deviation over test clients. Difference: personalized accuracy minus that of the "
        f"first row, for the same seeds and clients{side}. Its {inference.CONFIDENCE:.0%} interval contains a t "
        "interval over seeds, whose variance is pooled over methods, and a bootstrap over clients, in which a client "
        "of several seeds is one unit. With one seed it covers only the variation of clients, and decides nothing."
    )
    if "verdict" in cells:
        note += (
            f" Verdicts are made after Holm's correction over all rows with at least {inference.LEAST_SEEDS} seeds. "
            f"A difference within ±{MARGIN * judged_by.upper:g} does not matter."
        )
    note += f" Worst tenth: mean of the {{lowest}} {WORST_SHARE:.0%} of personalized accuracies."
    if "participants" in cells:
        note += " Participants: mean accuracy of participants, with the strategy."
    if "own model" in cells:
        note += " Own model: their mean accuracy with the model that each keeps, as old as its last round."
    if "all visits" in cells:
        note += (
            " Examples: visits (uses of an example) in local steps. All visits: also those outside of local steps, "
            "such as head epochs, second batches, full gradients and losses that choose a cluster."
        )
    if "down" in cells:
        note += (
            " Down, up: what a client receives and sends in a round. Kept: what a client keeps until its next round."
        )
    if "wall time (s)" in cells:
        note += f" {costs.WALL_TIME_NOTE}"
    return compare_runs.in_layout(form, cells, note, table)


def _strategies(run: runs_lib.Run) -> list[str]:
    main, recorded = run.summary["strategy"], run.recorded_clients["strategy"]
    return [main, *(name for name in recorded.unique() if name != main)]


def _row(group: dict[int, runs_lib.Run], strategy: str, reference: dict[int, runs_lib.Run], main: str) -> dict:
    """A row of `compare`: a strategy in the runs of `group`, compared with `main` in the reference's same seeds."""
    measured, differences, spent = [], [], []
    for seed, run in group.items():
        gains, theirs = _comparable_gains(run, strategy, reference.get(seed), main)
        differences.append(run.metric.gain(theirs["personalized"], gains["personalized"]))
        measured.append(
            {
                "initial_accuracy": gains["initial"].mean(),
                "initial_accuracy_sd": gains["initial"].std(ddof=0),
                "personalized_accuracy": gains["personalized"].mean(),
                "personalized_accuracy_sd": gains["personalized"].std(ddof=0),
                "difference": differences[-1].mean(),
                "share_hurt": (gains["gain"] < 0).mean(),
                "worst_accuracy": worst_mean(gains["personalized"].to_numpy(), run.metric),
                **_of_participants(run, strategy),
                "wall_seconds": run.wall_seconds,
            }
        )
        spent.append(costs.of(run))
    first, first_of_reference = next(iter(group.values())), next(iter(reference.values()))
    network, usual_network = (run_labels.settings(run).get("model", "") for run in (first, first_of_reference))
    return {
        "method": first.config["method"],
        "network": "" if network == usual_network else network,
        "settings": " ".join(_different(first, first_of_reference)),
        "first": first,
        "strategy": strategy,
        "seeds": len(group),
        "which_seeds": ", ".join(map(str, group)),
        **pd.DataFrame(measured).mean().to_dict(),
        **pd.DataFrame(spent).mean(skipna=False).to_dict(),  # missing if a seed lacks them
        "estimate": inference.estimate(differences),
        "means": {seed: figures["personalized_accuracy"] for seed, figures in zip(group, measured, strict=True)},
    }


def _comparable_gains(
    run: runs_lib.Run, strategy: str, reference: runs_lib.Run | None, main: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The clients' gains in a run, and those in the reference's; UserError if they cannot be compared."""
    if reference is None:
        raise UserError(
            f"{run.directory}: the reference has no run with seed {run.config['seed']}; give one, or leave this run out"
        )
    if run.config["task"] != reference.config["task"]:
        raise UserError(f"{run.directory}: another task than {reference.directory}; give runs of one task")
    repeat = "give runs with the same data, split and seed"
    if run.config.get("data_sha256") != reference.config.get("data_sha256"):
        raise UserError(
            f"{run.directory}: other client data than {reference.directory} (its SHA-256 differs); {repeat}"
        )
    gains, theirs = run.client_gains(strategy), reference.client_gains(main)
    if not gains.index.sort_values().equals(theirs.index.sort_values()):
        raise UserError(f"{run.directory}: other test clients than {reference.directory}; {repeat}")
    return gains, theirs


def _of_participants(run: runs_lib.Run, strategy: str) -> dict[str, float]:
    """Mean accuracies of participants, in the row of the main strategy: with it, and with the models that they keep."""
    figures = run.summary.get("participants", {}).get("strategies", {})
    if strategy != run.summary["strategy"]:
        figures = {}
    of = {"participants_accuracy": strategy, "kept_accuracy": names.KEPT[0]}
    return {
        column: figures[name]["personalized_accuracy"]["mean"] if name in figures else math.nan
        for column, name in of.items()
    }


def _different(run: runs_lib.Run, reference: runs_lib.Run) -> list[str]:
    """The flags of a run that the reference does not have, or has with another value.

    Where the reference was given a flag and a run of the same method was not, the run has its default.
    """
    theirs, ours = (dict(runs_lib.without_paths(of.config.get("given", {}))) for of in (reference, run))
    if run.config["method"] == reference.config["method"]:
        values = run_labels.settings(run)
        ours |= {
            name: values[name]
            for name in theirs
            if name not in ours
            and values.get(name) is not None
            and run_labels.as_text(values[name]) != run_labels.as_text(theirs[name])
        }
    different = {
        name: value
        for name, value in ours.items()
        if name not in _NOT_SHOWN and (name not in theirs or theirs[name] != value)
    }
    return [f"--{name}={run_labels.as_text(value)}" for name, value in different.items()]


def _readable(row: pd.Series) -> dict[str, str]:
    def accuracy(kind: str) -> str:
        return f"{row[f'{kind}_accuracy']:.3f} ± {row[f'{kind}_accuracy_sd']:.3f}"

    difference = f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
    return {
        "method": names.method(row["method"], row["network"]),
        "settings": row["settings"],
        "strategy": names.strategy(row["strategy"]),
        "seeds": row["which_seeds"],
        "initial accuracy": accuracy("initial"),
        "personalized accuracy": accuracy("personalized"),
        "difference": REFERENCE if row["judged"] == REFERENCE else difference,
        "verdict": "" if row["judged"] == REFERENCE else row["judged"],
        "share hurt": f"{row['share_hurt']:.0%}",
        "worst tenth": f"{row['worst_accuracy']:.3f}",
        "participants": tables.number(row["participants_accuracy"], ".3f"),
        "own model": tables.number(row["kept_accuracy"], ".3f"),
        "examples": costs.millions(row["examples"], "M"),
        "all visits": costs.millions(row["visits"], "M"),
        **{name: costs.millions(row[f"bytes_{name}"], "MB") for name in ("down", "up", "kept")},
        "wall time (s)": tables.number(row["wall_seconds"], ",.0f"),
    }


def _main() -> None:
    # Defined when the script starts, not on import, so that programs that import the tables keep their own flags.
    form = flags.DEFINE_enum("format", "text", compare_runs.FORMATS, "Format of the table.")
    output = flags.DEFINE_string("output", None, "File to write the table to. Default: print it.")
    reference = command_line.define_reference()

    def main(arguments: Sequence[str]) -> None:
        runs = command_line.read_with_reference(arguments, reference.value)
        command_line.write(render(compare(runs), form.value), output.value)

    command_line.run_script(main)


if __name__ == "__main__":
    _main()
