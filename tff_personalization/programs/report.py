"""The end of a run for the user: a short table, a sentence, and the page."""

import contextlib
import io
import json
import sys

from absl import logging

from analysis import names, outcome, runs, tables
from tff_personalization import errors
from tff_personalization.records import run_directory

_WIDTHS = (16, 16, 16, 9, 8)  # of the columns of figures, at least


def print_report(directory: run_directory.RunDirectory) -> None:
    """Prints the figures of a finished run and, without --noplots, makes its plots and page."""
    path, text = directory.path / "summary.json", io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            summary = json.loads(path.read_bytes())
            mean = summary["initial_accuracy"]["mean"]
            if mean is None or mean != mean:
                raise errors.UserError(f"{path}: no test client had a test example: nothing was evaluated.")
            run = runs.read(directory.path)
            _print_figures(summary, run.metric.name)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise errors.UserError(
            f"{path}: damaged ({type(error).__name__}): remove it and run the same command again."
        ) from error
    print(text.getvalue(), end="")
    print(f"\n{outcome.sentence(run)}\n\nRun:   {directory.path}")
    if directory.experiment.config.plots:
        draw(directory)
    sys.stdout.flush()


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _print_figures(summary: dict, called: str) -> None:
    epochs = summary["personalization_epochs"]
    method = names.method(summary["method"])
    rounds, clients = _counted(summary["rounds"], "round"), _counted(summary["test_clients"], "held-out client")
    print(f"\n{method} on {summary['source']}, {rounds}, seed {summary['seed']}")
    print(
        f"{called[0].upper()}{called[1:]} over {clients}, mean ± sd over clients, after {_counted(epochs, 'epoch')}:\n"
    )
    _print_rows(summary)
    _print_notes(summary)
    target = summary["rounds_to_target"]
    reached = ", ".join(f"{name} {target[name] or 'never'}" for name in ("initial", "personalized"))
    print(f"\n  first evaluated round that reaches {target['target_accuracy']:g}: {reached}")
    if "privacy" in summary:
        _print_privacy(summary["privacy"])
    times = summary["times"]
    speed = f", {times['examples_per_second']:,.0f} examples/s" if times["examples_per_second"] else ""
    print(f"  {times['wall_seconds']:,.0f} s{speed}")


def _print_rows(summary: dict) -> None:
    """A row for each strategy, for what validation clients chose, and for each strategy on participants."""
    rows = {names.strategy(name): figures for name, figures in summary["strategies"].items()}
    if choice := summary["choice"]:
        rows["as chosen"] = choice
    if at_round := summary["validation_round"]:
        rows[f"{names.strategy(summary['strategy'])}, round {at_round['round']}"] = at_round
    if participants := summary.get("participants"):
        rows |= {f"participants, {names.strategy(name)}": of for name, of in participants["strategies"].items()}
    lines = [("strategy", "initial", "personalized", "gain", "hurt")]
    for name, figures in rows.items():
        initial, personalized = (
            " ± ".join(tables.number(figures[f"{when}_accuracy"][of], ".3f") for of in ("mean", "sd"))
            for when in ("initial", "personalized")
        )
        gain, hurt = tables.number(figures["gain"]["mean"], "+.3f"), tables.number(figures["share_hurt"], ".0%")
        lines.append((name, initial, personalized, gain, hurt))
    columns = zip(*lines, strict=True)
    widths = [max(least, *(len(cell) + 1 for cell in of)) for least, of in zip(_WIDTHS, columns, strict=True)]
    for name, *cells in lines:
        print(f"  {name:<{widths[0]}}{''.join(map(str.rjust, cells, widths[1:]))}")


def _print_notes(summary: dict) -> None:
    """What the rows mean, and whose results are in no average."""
    if choice := summary["choice"]:
        rate = f", learning rate {choice['learning_rate']:g}" if choice["learning_rate"] else ""
        print(
            f"\n  chosen on {choice['validation_clients']} validation clients: {names.strategy(choice['strategy'])}, "
            f"epoch {choice['epoch']}{rate} ({choice['validation_accuracy']:.3f} on them)"
        )
    if at_round := summary["validation_round"]:
        print(f"\n  round {at_round['round']}: best evaluated round on validation clients")
    if participants := summary.get("participants"):
        print(f"\n  participants: {participants['clients']} clients that took part, evaluated on their own test parts")
    if summary["by_examples"]:
        means = (
            f"{k}: {figures['personalized_accuracy']['mean']:.3f}" for k, figures in summary["by_examples"].items()
        )
        print(f"\n  {names.strategy(summary['strategy'])} by train examples of a client: {', '.join(means)}")
    if without := summary["test_clients_without_test_data"]:
        print(f"\n  clients without test examples: {without}; no average includes them.")
    if untrained := summary.get("test_clients_without_train_data", 0):
        print(
            f"\n  clients without train examples: {untrained}; nothing is personalized for them, but the averages "
            "include them."
        )


def _print_privacy(spent: dict) -> None:
    print("\n  differential privacy of the model, for a client's whole data, by Rényi accounting:")
    for suffix in ("", "_poisson"):
        epsilon = spent[f"epsilon{suffix}"]
        value = "infinite" if epsilon is None else f"{epsilon:.3g}"
        holds = "" if not suffix else " (as papers give it; not how this run drew its cohorts)"
        print(f"  ε = {value}, δ = {spent['delta']:.2g}: {spent[f'sampling{suffix}']}{holds}")
    print("  This does not cover the metrics of rounds and evaluations, which are exact.\n")


def draw(directory: run_directory.RunDirectory) -> None:
    """Draws the plots and writes the page. The last printed line names the page."""
    from analysis import plot_all  # Matplotlib and Plotly take a while to import, so not before the first round
    from analysis.report import __main__ as page

    try:
        plots = plot_all.plot_run(directory.path)
        print(f"Plots: {directory.path / 'plots'} ({len(plots)} files)")
        print(f"Page:  {page.write(directory.path)}")
    except (OSError, errors.UserError) as error:  # The records are safe; plots and page can be made again.
        logging.warning("Plots or page not written: %s", error)
