"""The tables and figures of each experiment on the page, by the experiment's name."""

import dataclasses
from collections.abc import Callable, Sequence

import plotly.graph_objects as go
from matplotlib.figure import Figure

from analysis import (
    accuracy_distributions,
    before_after,
    client_scatter,
    gain_by_examples,
    k_shot,
    learning_curves,
    metric,
    personalization_epochs,
)
from analysis import decomposition as decomposition_plot
from analysis import runs as runs_lib
from analysis import study as study_lib
from analysis.report import client_figures, client_tables, figures, provenance, static, tables
from analysis.report import configurations as configurations_lib

TableFn = Callable[[figures.Configurations], tables.Table]


@dataclasses.dataclass(frozen=True)
class Spec:
    """How a figure is made, and its texts.

    Attributes:
        title: what it shows.
        caption: how to read it.
        about_seeds: how the interactive figure shows several seeds.
        hint: what a reader can do with it on the page.
        draw: makes the interactive figure.
        plot: makes the figure for print from runs; None to draw the interactive figure again.
        most: the largest number of configurations in print.
        shown: how many configurations are shown at first; None for all.
        one: whether one configuration is shown at a time.
        of_clients: whether `draw` also takes a function from a run to its key, for the marks of clients.
    """

    title: str
    caption: str
    draw: Callable[..., go.Figure]
    plot: static.PlotFn | None = None
    hint: str = ""
    about_seeds: str = ""
    most: int = 4
    shown: int | None = None
    one: bool = False
    of_clients: bool = False


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
    spec: Spec
    figure: go.Figure
    choices: list[tuple[str, str, bool]]
    seeds: bool
    print_runs: str
    drawn: Figure


@dataclasses.dataclass(frozen=True)
class Section:
    """An experiment on the page.

    Attributes:
        experiment: the experiment.
        tables: its tables.
        figures: its figures.
        missing: what is not shown, and why.
        provenance: the origin of the figures.
    """

    experiment: study_lib.Experiment
    tables: list[tables.Table]
    figures: list[Shown]
    missing: list[str]
    provenance: provenance.Provenance


_SEEDS = "Lines are means over seeds, error bars their standard deviation."
_PARTS = "Orange: FedSGD's term; blue: FOMAML's, one an epoch, the first the darkest."
_TOGETHER = "The clients of all seeds together."
_HOVER = "Point at a client, or choose one from the list, to see it. A click keeps it."
FIGURES = {
    "learning_curves": Spec(
        "Accuracy by round",
        "Dashed: initial accuracy, solid: personalized accuracy, mean over clients evaluated between rounds.",
        figures.learning_curves,
        learning_curves.plot,
        about_seeds=f"{_SEEDS} Thin lines are single seeds.",
        most=7,
        shown=5,
    ),
    "matched_initial": Spec(
        "Personalized against initial accuracy along training",
        "Each mark is an evaluated round of a run. Of two curves at the same initial accuracy, the {higher} one is of "
        "the model that is easier to personalize. Dotted: no gain.",
        figures.matched_initial,
    ),
    "personalization_curves": Spec(
        "Accuracy by personalization epoch",
        "Test clients, after the last round; epoch 0 is the initial model.",
        figures.personalization_curves,
        personalization_epochs.plot,
        about_seeds=_SEEDS,
        shown=8,
    ),
    "learning_rates": Spec(
        "Personalized accuracy by personalization learning rate",
        "Validation clients, main strategy, after all epochs.",
        figures.learning_rates,
        about_seeds=_SEEDS,
    ),
    "k_shot": Spec(
        "Personalized accuracy by number of train examples",
        "Each test client's train part is cut to this many examples.",
        figures.k_shot,
        k_shot.plot,
        about_seeds=_SEEDS,
    ),
    "ranking": Spec(
        "Initial against personalized accuracy",
        "Each mark is a configuration. If initial accuracy told all, the marks would lie on a rising line.",
        figures.ranking,
        about_seeds="Marks are means over seeds, with standard deviations.",
    ),
    "by_local_epochs": Spec(
        "Accuracy by local epochs E",
        "Dashed: initial, solid: personalized.",
        figures.by_setting("local_epochs", "local epochs E"),
        about_seeds=_SEEDS,
    ),
    "by_heterogeneity": Spec(
        "Accuracy by how different the writers are",
        "Dashed: initial, solid: personalized.",
        figures.by_setting("writer_heterogeneity", "heterogeneity of the synthetic writers"),
        about_seeds=_SEEDS,
    ),
    "decomposition_by_round": Spec(
        "FedAvg's update by round",
        f"The share of the cohort's mean update that each part makes up; the parts add up to 1. {_PARTS}",
        figures.decomposition_by_round,
        decomposition_plot.plot,
        "One configuration at a time.",
        most=3,
        one=True,
    ),
    "decomposition_by_epochs": Spec(
        "FedAvg's update by configuration",
        f"Shares at the last kept model, of single clients' updates (mean) and of the cohort's. {_PARTS}",
        figures.decomposition_by_epochs,
        about_seeds="Bars are means over seeds.",
    ),
    "before_after": Spec(
        "Each test client before and after personalization",
        "Blue circle: initial accuracy; orange triangle: personalized accuracy. A line joins a client's two. Purple: "
        "the client is hurt.",
        client_figures.before_after,
        before_after.plot,
        _HOVER,
        about_seeds=_TOGETHER,
        one=True,
        of_clients=True,
    ),
    "distributions": Spec(
        "Accuracy of test clients before and after personalization",
        "Blue: initial, orange: personalized.",
        client_figures.distributions,
        accuracy_distributions.plot,
        "One configuration at a time.",
        about_seeds=_TOGETHER,
        one=True,
    ),
    "cumulative": Spec(
        "Share of test clients below an accuracy",
        "Dashed: initial, solid: personalized.",
        client_figures.cumulative,
        about_seeds=_TOGETHER,
        shown=2,
    ),
    "gains": Spec(
        "Gain by number of train examples",
        "A mark is a test client. Squares are means of clients with similar numbers of examples, with standard errors.",
        client_figures.gains,
        gain_by_examples.plot,
        _HOVER,
        about_seeds="Clients are of all seeds, or of the lowest ones where there are many.",
        shown=1,
        of_clients=True,
    ),
    "client_scatter": Spec(
        "Test clients before and after personalization",
        "{Above} the dotted line a client gains, {below} it is hurt.",
        client_figures.client_scatter,
        client_scatter.plot,
        _HOVER,
        shown=1,
        of_clients=True,
    ),
}
# Tables and figures of each experiment; other experiments show all that their records allow.
_SHOWN: dict[str, tuple[tuple[TableFn, ...], tuple[str, ...]]] = {
    "table1": (
        (tables.table_1, tables.results),
        ("by_local_epochs", "learning_curves", "distributions", "gains"),
    ),
    "terms": (
        (tables.results, tables.decomposition),
        ("decomposition_by_epochs", "decomposition_by_round", "learning_curves"),
    ),
    "fine_tuning": ((tables.results, tables.ranking), ("ranking", "learning_curves", "matched_initial", "gains")),
    "centralized": (
        (tables.results, client_tables.choices, client_tables.by_examples),
        ("matched_initial", "personalization_curves", "learning_rates", "learning_curves", "distributions"),
    ),
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
    (tables.results,),
    (
        "before_after",
        "learning_curves",
        "distributions",
        "gains",
        "client_scatter",
        "personalization_curves",
        "k_shot",
        "ranking",
    ),
)


def build(study: study_lib.Study, experiment: study_lib.Experiment) -> Section:
    """The section of an experiment, with the tables and figures that its records allow."""
    configurations = configurations_lib.of_experiment(experiment)
    table_fns, names = _SHOWN.get(experiment.name, _ALL)
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
            missing.append(f"{metric.named(FIGURES[name].title, called)}: {_shortened(reason, study)}")
    return Section(experiment, made_tables, made_figures, missing, provenance.of(study, experiment, configurations))


def show(
    name: str,
    configurations: Sequence[configurations_lib.Configuration],
    key: Callable[[runs_lib.Run], str] = lambda run: run.name,
) -> Shown:
    """The figure with a name in `FIGURES`, its first state, and its form for print.

    Raises:
        NotRecordedError: the runs do not have its records.
    """
    called = metric.of(run for configuration in configurations for run in configuration.runs)
    spec = FIGURES[name]
    spec = dataclasses.replace(spec, title=metric.named(spec.title, called), caption=metric.named(spec.caption, called))
    figure = spec.draw(configurations, key=key) if spec.of_clients else spec.draw(configurations)
    figure = metric.name_in_figure(figure, called)
    names = list(dict.fromkeys(trace.meta["choice"] for trace in figure.data if trace.meta))
    count = 1 if spec.one else spec.shown or len(names)
    choices = []
    for place, choice in enumerate(names):
        traces = [trace for trace in figure.data if trace.meta and trace.meta["choice"] == choice]
        marker = traces[0].line.color if traces[0].type == "scatter" else None
        colour = marker or traces[0].marker.color
        for trace in traces:
            trace.visible = place < count
        choices.append((choice, colour, place < count))
    if spec.plot is None:
        drawn, printed = static.from_figure(figure, spec.title), len(configurations)
    else:
        drawn, printed = static.from_plot(spec.plot, configurations, spec.most), min(spec.most, len(configurations))
    seeds = any(len(configuration.runs) > 1 for configuration in configurations)
    print_runs = ""
    if spec.plot is not None and (seeds or len(configurations) > 1):
        print_runs = "the lowest seed of each configuration" if seeds else "each configuration"
        if printed < len(configurations):
            print_runs += f", of the first {printed}"
    return Shown(name, spec, figure, choices, seeds, print_runs, drawn)


def _shortened(reason: Exception, study: study_lib.Study) -> str:
    """A reason without the study's folder, which is a path of the machine."""
    return str(reason).replace(f"{study.directory}/", "")
