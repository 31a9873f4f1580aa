"""The tables and figures of each experiment on the page, by the experiment's name."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure

from analysis import metric
from analysis import runs as runs_lib
from analysis import study as study_lib
from analysis.report import client_tables, figure_specs, figures, provenance, static, tables
from analysis.report import configurations as configurations_lib

TableFn = Callable[[figures.Configurations], tables.Table]


@dataclasses.dataclass(frozen=True)
class Shown:
    """A figure of a section.

    Attributes:
        name: a word for file names.
        spec: how it is made, and its texts.
        figure: the interactive figure, in its first state.
        choices: the configurations to choose from, their colours, and whether they are shown at first.
        seeds: whether a configuration has several seeds.
        print_runs: the runs that the figure for print shows, if there are several.
        drawn: the figure for print.
    """

    name: str
    spec: figure_specs.Spec
    figure: go.Figure
    choices: list[tuple[str, str, bool]]
    seeds: bool
    print_runs: str
    drawn: Figure


@dataclasses.dataclass(frozen=True)
class Section:
    """An experiment on the page; `missing` says what is not shown, and why."""

    experiment: study_lib.Experiment
    tables: list[tables.Table]
    figures: list[Shown]
    missing: list[str]
    provenance: provenance.Provenance


_SECOND_STAGES = (tables.results, tables.ranking), ("ranking", "learning_curves", "matched_initial", "gains")
# Tables and figures of the paper's experiments and of one run; others show all that their records allow.
_SHOWN: dict[str, tuple[tuple[TableFn, ...], tuple[str, ...]]] = {
    "table1": (
        (tables.table_1, tables.results),
        ("by_local_epochs", "learning_curves", "distributions", "gains"),
    ),
    "spread": ((tables.results,), ("ranking", "learning_curves", "cumulative")),
    "terms": (
        (tables.results, tables.decomposition),
        ("decomposition_by_epochs", "decomposition_by_round", "learning_curves"),
    ),
    "fine_tuning": _SECOND_STAGES,
    "quiet_fine_tuning": _SECOND_STAGES,
    "centralized": (
        (tables.results, client_tables.choices, client_tables.by_examples),
        ("matched_initial", "personalization_curves", "learning_rates", "learning_curves", "distributions"),
    ),
    "early_rounds": ((tables.results,), ("matched_initial", "learning_curves", "gains")),
    "personalization": (
        (tables.results, client_tables.strategies, client_tables.participants),
        ("personalization_curves", "learning_rates", "ranking"),
    ),
    "who_gains": (
        (tables.results, client_tables.strategies, client_tables.participants, client_tables.by_examples),
        ("distributions", "cumulative", "gains", "client_scatter", "k_shot"),
    ),
    "server_optimizers": ((tables.results, tables.ranking), ("learning_curves", "ranking")),
    "heterogeneity": ((tables.results,), ("by_heterogeneity", "distributions", "matched_initial")),
    study_lib.ONE_RUN: (
        (client_tables.strategies, client_tables.participants, client_tables.choices, client_tables.by_examples),
        ("before_after", "distributions", "learning_curves", "personalization_curves", "gains", "k_shot"),
    ),
    "shakespeare": ((tables.results,), ("learning_curves", "distributions", "gains", "personalization_curves")),
}
_ALL = (
    (
        *(tables.results, client_tables.strategies, client_tables.participants, client_tables.choices),
        *(client_tables.by_examples, tables.decomposition),
    ),
    (
        "before_after",
        "learning_curves",
        "distributions",
        "cumulative",
        "gains",
        "client_scatter",
        "personalization_curves",
        "matched_initial",
        "learning_rates",
        "k_shot",
        "ranking",
        "differences",
        "by_bytes",
        "decomposition_by_epochs",
        "decomposition_by_round",
    ),
)


def build(study: study_lib.Study, experiment: study_lib.Experiment) -> Section:
    """The section of an experiment, with the tables and figures that its records allow."""
    configurations = configurations_lib.of_experiment(experiment)
    planned = study.one_run is not None or experiment.planned is not None  # else a folder of any name
    table_fns, names = _SHOWN.get(experiment.name, _ALL) if planned else _ALL
    made_tables, made_figures, missing = [], [], []
    called = metric.of(experiment.runs)
    for make in table_fns if configurations else ():
        try:
            made_tables.append(make(configurations).about(called))
        except runs_lib.NotRecordedError as reason:
            missing.append(f"Table {make.__name__.replace('_', ' ')}: {_shortened(reason, study)}")
    for name in names if configurations else ():
        try:
            made_figures.append(show(name, configurations, study.key))
        except runs_lib.NotRecordedError as reason:
            missing.append(f"{metric.named(figure_specs.FIGURES[name].title, called)}: {_shortened(reason, study)}")
    return Section(experiment, made_tables, made_figures, missing, provenance.of(study, experiment, configurations))


def show(
    name: str,
    configurations: Sequence[configurations_lib.Configuration],
    key: Callable[[runs_lib.Run], str] = lambda run: run.name,
) -> Shown:
    """The figure with a name in `figure_specs.FIGURES`, its first state, and its form for print.

    Raises:
        NotRecordedError: the runs do not have its records.
    """
    called = metric.of(run for configuration in configurations for run in configuration.runs)
    spec = figure_specs.FIGURES[name]
    spec = dataclasses.replace(spec, title=metric.named(spec.title, called), caption=metric.named(spec.caption, called))
    figure = spec.draw(configurations, key=key) if spec.of_clients else spec.draw(configurations)
    figure = metric.name_in_figure(figure, called)
    choices = _first_state(figure, 1 if spec.one else spec.shown)
    drawn, print_runs = _for_print(spec, figure, configurations)
    seeds = configurations_lib.several_seeds(configurations)
    return Shown(name, spec, figure, choices, seeds, print_runs, drawn)


def _first_state(figure: go.Figure, count: int | None) -> list[tuple[str, str, bool]]:
    """Shows the first `count` choices of a figure, or all. Returns each one's name, colour, and whether it is shown."""
    by_choice: dict[str, list[Any]] = {}
    for trace in figure.data:
        if trace.meta:
            by_choice.setdefault(trace.meta["choice"], []).append(trace)
    choices = []
    for place, (choice, traces) in enumerate(by_choice.items()):
        line = traces[0].line.color if traces[0].type == "scatter" else None
        visible = not count or place < count
        for trace in traces:
            trace.visible = visible
        choices.append((choice, line or traces[0].marker.color, visible))
    return choices


def _for_print(
    spec: figure_specs.Spec, figure: go.Figure, configurations: Sequence[configurations_lib.Configuration]
) -> tuple[Figure, str]:
    """The figure for print, and which runs it shows; "" if those of the interactive figure."""
    if spec.plot is None:
        return static.from_figure(figure, spec.title), ""
    if spec.all_runs:
        return spec.plot([run for configuration in configurations for run in configuration.runs]), ""
    drawn, which = static.from_plot(spec.plot, configurations, spec.most)
    seeds = configurations_lib.several_seeds(configurations)
    if not seeds and len(configurations) == 1:
        return drawn, ""
    runs = "the lowest seed of each configuration" if seeds else "each configuration"
    return drawn, f"{runs}, of {which}" if which else runs


def _shortened(reason: Exception, study: study_lib.Study) -> str:
    """A reason without the study's folder, which is a path of the machine."""
    return str(reason).replace(f"{study.directory}/", "")
