"""Tables of the report: unrounded numbers, and the same as readable cells."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from analysis import costs, metric, names, style, tables
from analysis import decomposition as decomposition_plot
from analysis import runs as runs_lib
from analysis import study as study_lib
from analysis.report import configurations as configurations_lib
from tff_personalization.records import places

PAPER = pathlib.Path(__file__).parents[1] / "paper_table1.csv"
_SEEDS_NOTE = "Mean (standard deviation over seeds). "
_ROUNDS_NOTE = (
    "Round to target: the first evaluated round at which the accuracy between rounds reaches the target, over the "
    "seeds that reach it. Chosen round: the evaluated round that was best on validation clients, with its accuracy on "
    "test clients. All other figures are of the last round. No round is chosen on test clients."
)
Configurations = Sequence[configurations_lib.Configuration]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: a word for file names.
        title: what rows and columns are.
        note: how to read the cells.
        tidy: the numbers, one column each, unrounded.
        cells: the same as text, rounded for reading.
        keys: like `cells`, the sort key of each cell: a number (NaN last) or text.
    """

    name: str
    title: str
    note: str
    tidy: pd.DataFrame
    cells: pd.DataFrame
    keys: pd.DataFrame

    def about(self, called: runs_lib.Metric) -> "Table":
        """The same table, with the name of another metric in its texts."""

        def named(words: str) -> str:
            return metric.named(words, called)

        cells, keys = (table.rename(columns=named) for table in (self.cells, self.keys))
        return dataclasses.replace(self, title=named(self.title), note=named(self.note), cells=cells, keys=keys)

    @property
    def csv(self) -> str:
        """The numbers as CSV."""
        return self.tidy.to_csv(index=False)

    @property
    def markdown(self) -> str:
        """The cells as a Markdown table."""
        return tables.markdown(self.cells, self.note)

    @property
    def latex(self) -> str:
        """The cells as a LaTeX tabular."""
        return tables.latex(self.cells, self.note)


# A heading, and a function from a row of the tidy table to the cell's text and sort key.
Column = tuple[str, Callable[[Any], tuple[str, Any]]]


def make(name: str, title: str, note: str, tidy: pd.DataFrame, columns: Sequence[Column]) -> Table:
    """Makes a table from its numbers and its columns."""
    rows = [row for _, row in tidy.iterrows()]
    shown = {heading: [show(row) for row in rows] for heading, show in columns}
    cells = pd.DataFrame({heading: [text for text, _ in column] for heading, column in shown.items()}, dtype=object)
    keys = pd.DataFrame({heading: [key for _, key in column] for heading, column in shown.items()}, dtype=object)
    return Table(name, title, note, tidy, cells, keys)


def text(name: str) -> Callable[[Any], tuple[str, Any]]:
    """Shows a column unchanged."""
    return lambda row: (str(row[name]), str(row[name]))


def named(name: str, called: Callable[[str], str]) -> Callable[[Any], tuple[str, Any]]:
    """Shows a column of command-line names by their full names."""
    return lambda row: (called(row[name]), called(row[name]))


def number(name: str, form: str, spread: bool = True) -> Callable[[Any], tuple[str, Any]]:
    """Shows a number, with its standard deviation over seeds in parentheses if there is one."""

    def show(row: Any) -> tuple[str, Any]:
        value = row.get(name)
        cell = tables.number(value, form, row.get(f"{name}_sd") if spread else None)
        return cell, math.nan if value is None else float(value)

    return show


def rounds_to_target(kind: str) -> Callable[[Any], tuple[str, Any]]:
    """Shows the round to the target, and how many seeds reach it if not all do."""
    name = f"rounds_to_target_{kind}"
    plain = number(name, ".1f", spread=False)

    def show(row: Any) -> tuple[str, Any]:
        cell, key = plain(row)
        reached = row[f"{name}_seeds"]
        if not reached:
            return "not reached", math.inf
        return (cell if reached == row["seeds"] else f"{cell} ({reached} of {row['seeds']} seeds)"), key

    return show


def seeds_note(configurations: Configurations) -> str:
    """The meaning of the parentheses; empty if each configuration has one seed."""
    return _SEEDS_NOTE if configurations_lib.several_seeds(configurations) else ""


def results(configurations: Configurations) -> Table:
    """One row per configuration: accuracies, gain, share hurt, rounds to the target, the chosen round, cost."""
    tidy = configurations_lib.over_seeds(configurations)
    targets = ", ".join(f"{target:g}" for target in tidy["target_accuracy"].unique())
    columns: list[Column] = [
        ("configuration", text("configuration")),
        ("seeds", number("seeds", ".0f")),
        ("initial accuracy", number("initial_accuracy", ".4f")),
        ("personalized accuracy", number("personalized_accuracy", ".4f")),
        ("gain", number("gain", "+.4f")),
        ("share hurt", number("share_hurt", ".1%", spread=False)),
        ("worst tenth", number("worst_tenth", ".4f")),
    ]
    if tidy["rounds_to_target_initial_seeds"].any() or tidy["rounds_to_target_personalized_seeds"].any():
        columns += [
            (f"round to {targets}: initial", rounds_to_target("initial")),
            (f"round to {targets}: personalized", rounds_to_target("personalized")),
        ]
    if tidy["chosen_round_seeds"].any():
        columns += [
            ("chosen round", number("chosen_round", ".0f", spread=False)),
            ("chosen: initial", number("chosen_initial_accuracy", ".4f")),
            ("chosen: personalized", number("chosen_personalized_accuracy", ".4f")),
        ]
    columns += [
        ("examples (M)", lambda row: _millions(row["examples"], ".2f")),
        *(_COSTS if tidy[list(costs.NAMES)].notna().any(axis=None) else ()),
        ("wall time (s)", number("wall_seconds", ",.0f", spread=False)),
    ]
    seeds = seeds_note(configurations)
    note = (
        f"{seeds}Worst tenth: mean personalized accuracy of the tenth of clients with the "
        f"{{lowest}}. {_ROUNDS_NOTE} {costs.WALL_TIME_NOTE}"
    )
    return make("results", f"Each configuration{', over its seeds' if seeds else ''}", note, tidy, columns)


def table_1(configurations: Configurations) -> Table:
    """The paper's Table 1: its values for Federated EMNIST beside those of these runs on their data.

    Raises:
        NotRecordedError: no configuration is one of the paper's cells.
    """
    cells = ["clients_per_round", "local_epochs"]
    ours = configurations_lib.over_seeds(configurations)
    for name in cells:
        ours[name] = places.numbers([str(configuration.setting(name)) for configuration in configurations])
    paper = pd.read_csv(PAPER)
    tidy = ours.merge(paper, on=cells, suffixes=("", "_paper")).sort_values(cells, ignore_index=True)
    if tidy.empty:
        raise runs_lib.NotRecordedError("none of the runs has a cohort and local epochs of the paper's Table 1")
    target = ", ".join(f"{target:g}" for target in tidy["target_accuracy"].unique())

    def of_paper(name: str) -> Callable[[Any], tuple[str, Any]]:
        return lambda row: (f"{row[f'{name}_paper']:.4f} ({row[f'{name}_sd_paper']:.4f})", row[f"{name}_paper"])

    columns: list[Column] = [
        ("cohort", number("clients_per_round", ".0f")),
        ("E", number("local_epochs", ".0f")),
        ("seeds", number("seeds", ".0f")),
        ("initial accuracy", number("initial_accuracy", ".4f")),
        ("paper: initial", of_paper("initial_accuracy")),
        ("personalized accuracy", number("personalized_accuracy", ".4f")),
        ("paper: personalized", of_paper("personalized_accuracy")),
        (f"round to {target}: initial", rounds_to_target("initial")),
        ("paper: round to 0.8, initial", number("rounds_to_target_initial_paper", "g")),
        (f"round to {target}: personalized", rounds_to_target("personalized")),
        ("paper: round to 0.8, personalized", number("rounds_to_target_personalized_paper", "g")),
        ("chosen: initial", number("chosen_initial_accuracy", ".4f")),
        ("chosen: personalized", number("chosen_personalized_accuracy", ".4f")),
    ]
    data = "; ".join(dict.fromkeys(run.source for c in configurations for run in c.runs))
    note = (
        f"{seeds_note(configurations)}Columns headed “paper” are Table 1 of arXiv 1909.12488, of Federated "
        f"EMNIST (2,500 + 900 writers); the others are of these runs, on {data}. {_ROUNDS_NOTE}"
    )
    return make("table1", "Table 1, these runs and the paper's", note, tidy, columns)


def ranking(configurations: Configurations) -> Table:
    """The configurations, ranked by initial and by personalized accuracy. The note has Kendall's τ between the two."""
    tidy = configurations_lib.over_seeds(configurations)[
        ["configuration", "seeds", *(f"{kind}_accuracy{sd}" for kind in style.KINDS for sd in ("", "_sd"))]
    ].copy()
    ascending = not configurations[0].first.metric.higher_is_better
    for kind in style.KINDS:
        tidy[f"rank_{kind}"] = tidy[f"{kind}_accuracy"].rank(ascending=ascending, method="min").astype(int)
    tidy = tidy.sort_values("rank_personalized", ignore_index=True)
    note = f"{seeds_note(configurations)}Ranks are of the means."
    if len(tidy) > 2:
        tau = tidy["initial_accuracy"].corr(tidy["personalized_accuracy"], method="kendall")
        if not pd.isna(tau):
            note += f" Kendall's τ between the two rankings: {tau:.2f} (1: the same order, 0: none in common)."
    columns: list[Column] = [
        ("configuration", text("configuration")),
        ("rank by initial", number("rank_initial", ".0f")),
        ("rank by personalized", number("rank_personalized", ".0f")),
        ("initial accuracy", number("initial_accuracy", ".4f")),
        ("personalized accuracy", number("personalized_accuracy", ".4f")),
    ]
    return make("ranking", "Ranked by initial and by personalized accuracy", note, tidy, columns)


def decomposition(configurations: Configurations) -> Table:
    """FedAvg's update at the last kept model of each run: norm, cosine and share of each part, over seeds.

    Raises:
        NotRecordedError: no run was decomposed.
    """
    rows = []
    for configuration in configurations:
        tables_of_runs = configuration.recorded(lambda run: run.decomposition)
        found = [table[table["round"] == table["round"].max()] for table in tables_of_runs]
        if found:
            measures = pd.concat(found).groupby(["level", "part"])[["relative_norm", "cosine_with_fed_sgd", "share"]]
            mean, sd = measures.mean(), measures.std(ddof=1).add_suffix("_sd")
            rows.append(mean.join(sd).reset_index().assign(configuration=configuration.label, seeds=len(found)))
    if not rows:
        raise runs_lib.NotRecordedError("no run was decomposed (decomposition.csv)")
    tidy = pd.concat(rows, ignore_index=True)

    def part(row: Any) -> tuple[str, Any]:
        name = decomposition_plot.part_name(row["part"])
        return name, name

    columns: list[Column] = [
        ("configuration", text("configuration")),
        ("level", text("level")),
        ("part", part),
        ("share of the update", number("share", ".3f")),
        ("norm over the update's", number("relative_norm", ".3f")),
        ("cosine with FedSGD's term", number("cosine_with_fed_sgd", ".3f")),
    ]
    note = (
        f"{seeds_note(configurations)}Level client: mean over a cohort's clients; cohort: of their mean update. "
        "After the last decomposed round."
    )
    return make("decomposition", "How much of FedAvg's update is FedSGD's, and how much FOMAML's", note, tidy, columns)


def all_runs(study: study_lib.Study) -> Table:
    """One row per finished run of the study, with its experiments and its names in them."""
    called: dict[str, list[str]] = {}
    for experiment in study.experiments:
        for configuration in configurations_lib.of_experiment(experiment):
            for run in configuration.runs:
                called.setdefault(study.key(run), []).append(f"{experiment.name}: {configuration.label}")
    rows = []
    for run in study.runs:
        words = {"run": study.key(run), "experiments": "; ".join(called[study.key(run)])}
        words |= {"method": run.config["method"], "data": run.source}
        counts = {"seed": run.config["seed"], "rounds": run.summary["rounds"]}
        rows.append({**words, **counts, **configurations_lib.per_run(run)})
    columns: list[Column] = [
        ("run", text("run")),
        ("method", named("method", names.method)),
        ("data", text("data")),
        ("seed", number("seed", ".0f")),
        ("rounds", number("rounds", ".0f")),
        ("initial accuracy", number("initial_accuracy", ".4f")),
        ("personalized accuracy", number("personalized_accuracy", ".4f")),
        ("gain", number("gain", "+.4f")),
        ("share hurt", number("share_hurt", ".1%")),
        ("wall time (s)", number("wall_seconds", ",.0f")),
        ("experiments", text("experiments")),
    ]
    note = f"Accuracies: mean over test clients, after the last round. {costs.WALL_TIME_NOTE}"
    return make("runs", "Every finished run", note, pd.DataFrame(rows), columns)


# Costs of training, shown if any run has them on record.
_COSTS: tuple[Column, ...] = (
    ("all visits (M)", lambda row: _millions(row["visits"], ".2f")),
    ("down (MB a client and round)", lambda row: _millions(row["bytes_down"], ".3g")),
    ("up (MB a client and round)", lambda row: _millions(row["bytes_up"], ".3g")),
    ("kept by a client (MB)", lambda row: _millions(row["bytes_kept"], ".3g")),
)


def _millions(value: float, form: str) -> tuple[str, Any]:
    return tables.number(value / 1e6, form), value / 1e6
