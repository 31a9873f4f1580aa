"""The figures that a page can have: how each is made, and its texts."""

import dataclasses
from collections.abc import Callable

import plotly.graph_objects as go

from analysis import (
    accuracy_distributions,
    before_after,
    client_scatter,
    compare_methods,
    gain_by_examples,
    k_shot,
    learning_curves,
    method_differences,
    personalization_epochs,
)
from analysis import decomposition as decomposition_plot
from analysis.report import client_figures, comparison_figures, figures, static


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
        all_runs: whether `plot` shows all runs, not one of each configuration.
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
    all_runs: bool = False


_SEEDS = "Lines are means over seeds, error bars their standard deviation."
_PARTS = "Orange: FedSGD's term. Blue: FOMAML's terms, one for each epoch; the first is the darkest."
_TOGETHER = "The clients of all seeds together."
_HOVER = "Point at a client, or choose one from the list, to see it. A click keeps it."
FIGURES = {
    "learning_curves": Spec(
        "Accuracy by round",
        "Dashed: initial accuracy. Solid: personalized accuracy. Each is a mean over the clients that are evaluated "
        "between rounds.",
        figures.learning_curves,
        learning_curves.plot,
        about_seeds=f"{_SEEDS} Thin lines are single seeds.",
        most=7,
        shown=5,
    ),
    "matched_initial": Spec(
        "Personalized against initial accuracy along training",
        "Each mark is an evaluated round. At the same initial accuracy, the model with the {higher} mark is easier to "
        "personalize. Dotted: no gain.",
        figures.matched_initial,
    ),
    "personalization_curves": Spec(
        "Accuracy by personalization epoch",
        "Test clients, after the last round. Epoch 0 is the initial model.",
        figures.personalization_curves,
        personalization_epochs.plot,
        about_seeds=_SEEDS,
        shown=8,
    ),
    "learning_rates": Spec(
        "Personalized accuracy by personalization learning rate",
        "Accuracy of validation clients with the main strategy, after all epochs.",
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
        "Each mark is a configuration. If initial accuracy decided personalized accuracy, the marks would lie on a "
        "rising line.",
        figures.ranking,
        about_seeds="Marks are means over seeds, with standard deviations.",
    ),
    "differences": Spec(
        "Differences between methods",
        "Differences of personalized accuracy (means over seeds and clients), with 95 % intervals. Differences in the "
        "grey band do not matter. Verdicts are made after Holm's correction.",
        comparison_figures.differences,
        lambda runs: method_differences.plot(compare_methods.reference_first(runs)),
        all_runs=True,
    ),
    "by_bytes": Spec(
        "Personalized accuracy by bytes sent",
        "Test clients, main strategy. The bytes are those that all clients send and receive in all rounds of training.",
        comparison_figures.by_bytes,
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
        "Blue circle: initial accuracy; orange triangle: personalized accuracy. A line joins the two accuracies of a "
        "client. Purple: the client is hurt.",
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
        about_seeds="Clients of all seeds; if there are too many, of the lowest seeds.",
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
