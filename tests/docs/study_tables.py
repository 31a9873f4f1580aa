"""Tables of the pages in docs/ from the records of the paper's experiments."""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from analysis import claims, compare_methods, names, runs, study, tables
from analysis.report import configurations
from analysis.report import tables as report_tables

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results"
SMALL = RESULTS / "paper-small.zip"
MEDIUM = RESULTS / "paper-medium.zip"
COMPARISON = RESULTS / "comparison-femnist.zip"
SEARCH = RESULTS / "comparison-femnist-search.zip"
SECOND_BEST = RESULTS / "comparison-femnist-second-best.zip"
# The bytes of a round are in another table, `tables.costs`.
_NOT_IN_COMPARISON = ["settings", "down", "up", "kept", "wall time (s)"]
_SEARCHED = (
    "client_learning_rate",
    "base_learning_rate",
    "inner_learning_rate",
    "head_learning_rate",
    "p_fed_me_learning_rate",
    "server_learning_rate",
    "server_sgd_momentum",
    "base_sgd_momentum",
)
_WORDS = {
    claims.SUPPORTED: "**supported**",
    claims.NOT_SUPPORTED: "**not supported**",
    claims.NO_DIFFERENCE: "**no difference**",
    claims.UNDECIDED: "undecided",
}
_SYNTHETIC = re.compile(r"Synthetic writers of heterogeneity [\d.]+: ")
_CLAIMS = ("T1", "C1", "C2", "C3", "P", "W", "S", "L", "X")  # their order


def markdown(table: pd.DataFrame) -> str:
    """A table with its numbers in a readable form."""
    readable = table.map(lambda value: f"{value:,}" if isinstance(value, int) else str(value))
    return tables.markdown(readable, "")


def verdicts() -> str:
    """The verdicts of scale small on the paper's claims."""
    return _verdicts(SMALL)


def verdicts_femnist() -> str:
    """The verdicts of the study on Federated EMNIST on the claims that its runs reach so far."""
    return _verdicts(MEDIUM)


def claim_map() -> str:
    """Every claim by data: whether it holds, and the effect."""
    cells: dict[str, dict[str, str]] = {}
    for records, data in ((MEDIUM, "Federated EMNIST"), (SMALL, "UNIPEN")):
        for found in judged(records):
            row = cells.setdefault(found["id"].split(" ")[0], {"": found["id"].split(" ")[0]})
            row.setdefault("claim", _SYNTHETIC.sub("", found["statement"]))
            if found["verdict"] != claims.NO_RUNS:
                shown = f"{_WORDS[found['verdict']]} {found['effect']:+.3f}"
                if other := _other_data(found):
                    row["other data"] = "<br>".join(filter(None, [row.get("other data"), f"{shown} ({other})"]))
                else:
                    row[data] = shown
    order = ["", "claim", "Federated EMNIST", "UNIPEN", "other data"]
    by_id = sorted(cells.values(), key=lambda row: (_CLAIMS.index(row[""].split(".")[0]), row[""]))
    return markdown(pd.DataFrame(by_id)[order].fillna("–"))


def _other_data(found: dict[str, Any]) -> str:
    """The data of a verdict that is not on handwriting of real writers; "" for one that is."""
    if found["synthetic"]:
        return f"synthetic writers{found['id'].partition('(')[2].rstrip(')').replace('h =', ', heterogeneity')}"
    return "Shakespeare" if found["id"].startswith("L.") else ""


def second_stages() -> str:
    """Accuracy with and without a second stage on Federated EMNIST, by seed."""

    def name(entry: study.Entry) -> str:
        flags = entry.run.config["flags"]
        rate = flags["optimizers"].get("stage_2_server", {}).get("learning_rate")
        return entry.label if rate is None else f"K = {flags['local_steps']}, α = {rate}"

    return _by_seed("fine_tuning", name)


def terms_femnist() -> str:
    """Accuracy with both terms of FedAvg's update and with one of them on Federated EMNIST, by seed."""
    return _by_seed("terms", lambda entry: f"{entry.label}, E = {entry.run.config['flags']['local_epochs']}")


def server_optimizers_femnist() -> str:
    """Accuracy with server optimizers of FedAvg on Federated EMNIST, by seed."""
    return _by_seed("server_optimizers", lambda entry: f"server {entry.label}")


def _by_seed(experiment: str, name: Callable[[study.Entry], str]) -> str:
    """Initial → personalized accuracy of an experiment's runs on Federated EMNIST: a row for each seed that has all."""
    rows: dict[int, dict[str, str]] = {}
    for entry in sorted(study.read(MEDIUM).by_name[experiment].entries, key=lambda entry: entry.seed):
        means = [entry.run.summary[which]["mean"] for which in ("initial_accuracy", "personalized_accuracy")]
        row = rows.setdefault(entry.seed, {"seed": str(entry.seed)})
        row[name(entry)] = " → ".join(f"{mean:.3f}" for mean in means)
    return markdown(pd.DataFrame(list(rows.values())).dropna())


def table1_femnist() -> str:
    """The cells of the paper's Table 1 that the runs on Federated EMNIST reach so far, beside the paper's."""
    return _cells("table1", "paper: round to 0.8, personalized")


def spread_femnist() -> str:
    """The cells of Table 1 whose deviations over six seeds on Federated EMNIST are compared, beside the paper's."""
    return _cells("spread", "paper: personalized")


def _cells(experiment: str, last_column: str) -> str:
    cells = report_tables.table_1(configurations.of(study.read(MEDIUM).by_name[experiment].runs)).cells
    return markdown(cells.loc[:, :last_column])


def femnist() -> str:
    """FedAvg, its second stage and pooled models on Federated EMNIST, over the seeds that have all of them."""
    found = study.read(MEDIUM).by_name
    of_label: dict[str, dict[int, runs.Run]] = {}
    for experiment in ("fine_tuning", "centralized"):
        for entry in found[experiment].entries:
            stage_2 = entry.run.config["flags"]["optimizers"].get("stage_2_server", {}).get("learning_rate")
            usual = stage_2 is None or (stage_2, entry.run.config["flags"]["local_steps"]) == (0.001, 10)
            if usual and entry.run.summary["rounds"] == 160:
                of_label.setdefault(entry.label, {}).setdefault(entry.seed, entry.run)
    seeds = set.intersection(*(set(by_seed) for by_seed in of_label.values()))
    table = compare_methods.compare([by_seed[seed] for by_seed in of_label.values() for seed in sorted(seeds)])
    table["method"] = list(of_label)
    return compare_methods.render(table, "markdown", ["settings", "strategy", "seeds", "wall time (s)"])


def who_gains_femnist() -> str:
    """Shares of test clients that gain, stay as they are and are hurt, by strategy: means over seeds."""
    found = study.read(MEDIUM).by_name["who_gains"].runs
    rows = []
    for strategy in found[0].config["flags"]["strategies"]:
        gains = [run.client_gains(strategy)["gain"] for run in found]
        shares = {
            name: np.mean([share(gain).mean() for gain in gains])
            for name, share in {
                "gain": lambda gain: gain > 0,
                "unchanged": lambda gain: gain == 0,
                "hurt": lambda gain: gain < 0,
            }.items()
        }
        mean = np.mean([gain.mean() for gain in gains])
        shown = {name: f"{share:.0%}" for name, share in shares.items()}
        rows.append({"strategy": names.strategy(strategy), "mean gain": f"{mean:+.3f}", **shown})
    return markdown(pd.DataFrame(rows))


def personalization_femnist() -> str:
    """Personalization with SGD and with Adam of models that clients trained with either: accuracies, by strategy."""
    rows: dict[int, dict[str, str]] = {}
    for entry in sorted(study.read(MEDIUM).by_name["personalization"].entries, key=lambda entry: entry.seed):
        row = rows.setdefault(entry.seed, {"seed": str(entry.seed)})
        for strategy in entry.run.config["flags"]["strategies"]:
            means = entry.run.client_gains(strategy)[["initial", "personalized"]].mean()
            row[f"{entry.label}: {names.strategy(strategy)}"] = " → ".join(f"{mean:.3f}" for mean in means)
    return markdown(pd.DataFrame(list(rows.values())).fillna("–"))


def k_shot_femnist() -> str:
    """Fine-tuning with fewer train examples: means over seeds."""
    tables_of_seeds = []
    for run in study.read(MEDIUM).by_name["who_gains"].runs:
        rows = run.k_shot[(run.k_shot["strategy"] == "fine_tune") & (run.k_shot["epoch"] == run.k_shot["epoch"].max())]
        tables_of_seeds.append(rows.set_index("examples")[["accuracy_mean", "share_gaining", "share_hurt"]])
    means = sum(tables_of_seeds) / len(tables_of_seeds)
    return markdown(
        pd.DataFrame(
            {
                "train examples": name if name == "all" else f"at most {name}",
                "personalized accuracy": f"{row['accuracy_mean']:.3f}",
                "gain": f"{row['share_gaining']:.0%}",
                "hurt": f"{row['share_hurt']:.0%}",
            }
            for name, row in means.iterrows()
        )
    )


def search_femnist() -> str:
    """Trials of FedAvg on Federated EMNIST: a row for each client rate, columns for momentum and number of rounds."""
    cells: dict[float, dict[tuple[float, int], str]] = {}
    for run in _trials()["fed_avg", ""]:
        of = run.config["flags"]
        rate, momentum = of["optimizers"]["client"]["learning_rate"], of["optimizers"]["server"]["options"]["momentum"]
        means = [run.summary[which]["mean"] for which in ("initial_accuracy", "personalized_accuracy")]
        cells.setdefault(rate, {})[momentum, of["rounds"]] = " → ".join(f"{mean:.3f}" for mean in means)
    table = pd.DataFrame.from_dict(cells, orient="index").sort_index().sort_index(axis=1).fillna("–")
    table.columns = [f"momentum {momentum:g}, {rounds} rounds" for momentum, rounds in table.columns]
    return markdown(table.rename_axis("client learning rate").reset_index())


def chosen_femnist() -> str:
    """The settings that validation clients chose for each method on Federated EMNIST whose row is finished."""
    rows, compared = [], {_trained(run) for run in runs.read_all([COMPARISON])}
    for (method, network), trials in sorted(_trials().items()):
        if (method, network) not in compared:  # its row is not finished
            continue
        tried: dict[int, dict[str, float]] = {}  # accuracy by rounds and settings
        for run in trials:
            settings = " ".join(
                f"{name}={run.config['given'][name]}" for name in _SEARCHED if name in run.config["given"]
            )
            tried.setdefault(run.summary["rounds"], {})[settings] = run.summary["personalized_accuracy"]["mean"]
        first, last = tried[min(tried)], tried[max(tried)]
        chosen = max(last, key=lambda settings: last[settings])
        spread = f"{min(first.values()):.3f} to {max(first.values()):.3f}"
        rows.append(
            {
                "method": names.method(method, network),
                "chosen": f"`{chosen}`",
                f"personalized accuracy, {max(tried)} rounds": f"{last[chosen]:.3f}",
                f"all points, {min(tried)} rounds": spread,
            }
        )
    return markdown(pd.DataFrame(rows))


@functools.cache
def _trials() -> dict[tuple[str, str], list[runs.Run]]:
    """The trials by method and network; "" is the network of the comparison."""
    trials: dict[tuple[str, str], list[runs.Run]] = {}
    for run in runs.read_all([SEARCH]):
        trials.setdefault(_trained(run), []).append(run)
    return trials


def _trained(run: runs.Run) -> tuple[str, str]:
    """A run's method, and its network if that is not the usual one of the comparison."""
    return run.config["method"], run.config["given"].get("model", "")


def comparison_femnist() -> str:
    """Methods and strategies compared on Federated EMNIST, as far as their runs are finished."""
    table = compare_methods.compare(compare_methods.reference_first(runs.read_all([COMPARISON])))
    return compare_methods.render(table, "markdown", _NOT_IN_COMPARISON)


def second_best_femnist() -> str:
    """The second best points of the searches of methods of which a seed diverged, beside FedAvg."""
    of_fed_avg = [run for run in runs.read_all([COMPARISON]) if run.name.startswith("fed_avg-")]
    every = compare_methods.reference_first([*of_fed_avg, *runs.read_all([SECOND_BEST])])
    table = compare_methods.compare([run for run in every if run.config["flags"]["model"] == "cnn"])
    table = table[table["strategy"].isin(["fine_tune", "meta_sgd"])]
    return compare_methods.render(table, "markdown", ["verdict", *_NOT_IN_COMPARISON])


def _verdicts(records: pathlib.Path) -> str:
    return markdown(pd.DataFrame([_of_claim(found) for found in judged(records)]))


@functools.cache
def judged(records: pathlib.Path) -> list[dict[str, Any]]:
    """The verdicts on some records, which several tables show; their bootstraps take seconds."""
    return claims.judge(study.read(records))


def _of_claim(found: dict[str, Any]) -> dict[str, str]:
    has_interval = found["low"] is not None
    return {
        "": found["id"],
        "claim": found["statement"] + (" *(synthetic data)*" if found["synthetic"] else ""),
        "effect": f"{found['effect']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]" if has_interval else "–",
        "by its interval": found["before_correction"],
        "after correction": f"**{found['verdict']}**",
        "seeds": str(found["seeds"] or "–"),
    }
