"""Tables of strategies, participants, choices and numbers of examples; see `tables`."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from analysis import gain_by_examples, names
from analysis import runs as runs_lib
from analysis.report import tables

_OF_STRATEGIES: list[tables.Column] = [
    ("configuration", tables.text("configuration")),
    ("strategy", tables.named("strategy", names.strategy)),
    ("personalized accuracy", tables.number("personalized_accuracy", ".4f")),
    ("gain", tables.number("gain", "+.4f")),
    ("share hurt", tables.number("share_hurt", ".1%", spread=False)),
]


def strategies(configurations: tables.Configurations) -> tables.Table:
    """Every strategy of the runs: personalized accuracy after all epochs, gain, share hurt.

    Raises:
        NotRecordedError: there is only one strategy.
    """
    tidy = _by_strategy(configurations, lambda run: run.summary["strategies"])
    if tidy.empty or tidy["strategy"].nunique() < 2:
        raise runs_lib.NotRecordedError("the runs were evaluated with only one strategy")
    note = f"{tables.seeds_note(configurations)}Test clients, after the last round and all personalization epochs."
    return tables.make("strategies", "Each strategy", note, tidy, _OF_STRATEGIES)


def participants(configurations: tables.Configurations) -> tables.Table:
    """Participants on their own test parts: the main strategy, and the model that each keeps.

    Raises:
        NotRecordedError: no run evaluated participants.
    """
    tidy = _by_strategy(configurations, lambda run: run.summary.get("participants", {}).get("strategies", {}))
    if tidy.empty:
        raise runs_lib.NotRecordedError("no run evaluated participants (--participants)")
    note = (
        f"{tables.seeds_note(configurations)}Clients that took part in training, on their own test parts, after the "
        "last round. A strategy starts from the global model. The gain of the clients' own models is relative to the "
        "global model."
    )
    return tables.make("participants", "Participants", note, tidy, _OF_STRATEGIES)


def _by_strategy(
    configurations: tables.Configurations, figures_of: Callable[[runs_lib.Run], Mapping[str, Any]]
) -> pd.DataFrame:
    """One row per configuration and strategy: means over its runs, and their spread."""
    rows = []
    for configuration in configurations:
        found = [
            {
                "strategy": strategy,
                "personalized_accuracy": figures["personalized_accuracy"]["mean"],
                "gain": figures["gain"]["mean"],
                "share_hurt": figures["share_hurt"],
            }
            for run in configuration.runs
            for strategy, figures in figures_of(run).items()
        ]
        for strategy, several in pd.DataFrame(found).groupby("strategy", sort=False) if found else ():
            measures = several.drop(columns="strategy").astype(float)  # None without a client with test examples
            spread = measures.std(ddof=1).add_suffix("_sd")
            row = {"configuration": configuration.label, "strategy": strategy, "seeds": len(several)}
            rows.append({**row, **measures.mean(), **spread})
    return pd.DataFrame(rows)


def choices(configurations: tables.Configurations) -> tables.Table:
    """The strategy, epoch and learning rate that validation clients choose, and their accuracy on test clients.

    Raises:
        NotRecordedError: no run has validation clients.
    """
    rows = []
    for configuration in configurations:
        found = [choice for run in configuration.runs if (choice := run.summary.get("choice"))]
        if not found:
            continue
        accuracies = pd.Series([choice["personalized_accuracy"]["mean"] for choice in found])
        chosen = [
            f"{names.strategy(choice['strategy'])}, epoch {choice['epoch']}"
            + (f", rate {choice['learning_rate']:g}" if choice["learning_rate"] is not None else "")
            for choice in found
        ]
        counts = pd.Series(chosen).value_counts(sort=False)
        rows.append(
            {
                "configuration": configuration.label,
                "seeds": len(accuracies),
                "personalized_accuracy": accuracies.mean(),
                "personalized_accuracy_sd": accuracies.std(ddof=1),
                "chosen": "; ".join(f"{what} ({count}×)" if count > 1 else what for what, count in counts.items()),
            }
        )
    if not rows:
        raise runs_lib.NotRecordedError("no run has validation clients")
    columns: list[tables.Column] = [
        ("configuration", tables.text("configuration")),
        ("seeds", tables.number("seeds", ".0f")),
        ("personalized accuracy, as chosen", tables.number("personalized_accuracy", ".4f")),
        ("chosen", tables.text("chosen")),
    ]
    note = tables.seeds_note(configurations)
    note += "Strategy, epoch and learning rate are chosen for each run on its validation clients."
    return tables.make("choices", "As validation clients choose", note, pd.DataFrame(rows), columns)


def by_examples(configurations: tables.Configurations) -> tables.Table:
    """Accuracies of clients with similar numbers of train examples: for which clients a comparison holds.

    The groups are the quarters of all configurations' clients by number of train examples. There are fewer groups if
    many clients have the same number.

    Raises:
        NotRecordedError: a run released only aggregates, or all clients have the same number of train examples.
    """
    clients = pd.concat(
        [
            run.client_gains().assign(configuration=configuration.label, seed=run.config["seed"])
            for configuration in configurations
            for run in configuration.runs
        ]
    )
    clients["group"] = gain_by_examples.groups(clients["train_examples"], 4)
    if clients["group"].nunique() < 2:
        raise runs_lib.NotRecordedError("the clients have the same number of train examples")
    labels = [configuration.label for configuration in configurations]
    clients["configuration"] = pd.Categorical(clients["configuration"], labels)
    measures = {"initial": "initial_accuracy", "personalized": "personalized_accuracy", "gain": "gain"}
    places = ["configuration", "group", "seed"]
    by_seed = clients.rename(columns=measures).groupby(places, observed=True)[list(measures.values())].mean()
    over_seeds = by_seed.groupby(places[:2], observed=True)
    counted = (
        clients.groupby(places[:2], observed=True)["train_examples"]
        .agg(["min", "max", "size"])
        .add_prefix("train_examples_")
    )
    tidy = over_seeds.mean().join(over_seeds.std(ddof=1).add_suffix("_sd")).join(counted).reset_index()
    tidy["clients"] = tidy.pop("train_examples_size") / over_seeds.size().to_numpy()
    tidy = tidy.sort_values(["group", "configuration"], ignore_index=True)

    def span(row: Any) -> tuple[str, Any]:
        low, high = int(row["train_examples_min"]), int(row["train_examples_max"])
        return (f"{low}" if low == high else f"{low}–{high}"), low

    seeds = tables.seeds_note(configurations)
    columns: list[tables.Column] = [
        ("train examples", span),
        ("configuration", tables.text("configuration")),
        ("initial accuracy", tables.number("initial_accuracy", ".4f")),
        ("personalized accuracy", tables.number("personalized_accuracy", ".4f")),
        ("gain", tables.number("gain", "+.4f")),
        ("clients of a seed" if seeds else "clients", tables.number("clients", "g", spread=False)),
    ]
    note = (
        f"{seeds}Quarters of the test clients by number of train examples. There are fewer groups if many clients have "
        "the same number."
    )
    return tables.make("by_examples", "By number of train examples", note, tidy, columns)
