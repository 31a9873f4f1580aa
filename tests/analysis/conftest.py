"""Run directories with synthetic numbers, in the form of the training program."""

import itertools
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

BINS = 100
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
SOURCE = "synthetic handwriting, 120 writers, heterogeneity 1"


def write_run(
    directory: pathlib.Path,
    *,
    seed: int = 1,
    method: str = "personalized_fed_avg",
    stages: tuple[tuple[str, int], ...] = (("fed_avg", 80), ("reptile", 20)),
    strategies: tuple[str, ...] = ("fine_tuning", "head_only", "local_only"),
    epochs: int = 5,
    clients: int = 70,
    without_test_data: int = 2,
    source: str = SOURCE,
    release: str = "records",
    finished: bool = True,
    target: float = 0.8,
    flags: dict | None = None,
    given: dict | None = None,
    examples: tuple[str, ...] = ("0", "5", "all"),
) -> pathlib.Path:
    """Writes a run directory. Accuracies are multiples of 1 / (a client's few test examples)."""
    rng = np.random.default_rng(seed)
    rounds = sum(count for _, count in stages)
    directory.mkdir(parents=True)
    common: dict[str, Any] = {"run_name": directory.name, "method": method, "task": "emnist62", "source": source}
    common |= {"synthetic": source.startswith("synthetic"), "seed": seed}
    settings = {"seed": seed, "method": method, "rounds": rounds, "run_name": directory.name} | (flags or {})
    _write_json(directory / "config.json", common | {"flags": settings, "given": given or {}, "cores": 2})

    table = _client_rows(rng, strategies, epochs, clients, without_test_data)
    metrics, evaluations = _round_rows(rng, stages, strategies[0], epochs)
    metrics.to_csv(directory / "metrics.csv", index=False)
    if not finished:
        evaluations.to_csv(directory / "evaluations.csv", index=False)
        return directory

    counted = table[table["test_examples"] > 0]
    by_key = {
        (strategy, epoch): counted[(counted["strategy"] == strategy) & (counted["epoch"] == epoch)].set_index("client")
        for strategy in strategies
        for epoch in range(epochs + 1)
    }
    final = [_aggregates(rounds, "test", *key, rows, by_key[key[0], 0]) for key, rows in by_key.items()]
    pd.concat([evaluations, pd.DataFrame(final)]).to_csv(directory / "evaluations.csv", index=False)
    histogram = [row for key, rows in by_key.items() for row in _histogram_rows(*key, rows)]
    pd.DataFrame(histogram).to_csv(directory / "distribution.csv", index=False)
    if examples:
        shares = np.linspace(0, 1, len(examples))
        k_shot = [
            {"examples": k, **row, "accuracy_mean": before["accuracy_mean"] + share * row["gain_mean"]}
            for k, share in zip(examples, shares, strict=True)
            for before, row in zip(np.repeat(final[:: epochs + 1], epochs + 1), final, strict=True)
        ]
        pd.DataFrame(k_shot).to_csv(directory / "k_shot.csv", index=False)
    pd.DataFrame(_decomposition_rows(rounds, epochs=3)).to_csv(directory / "decomposition.csv", index=False)
    if release == "records":
        table.to_csv(directory / "clients.csv", index=False)

    before, after = by_key[strategies[0], 0]["accuracy"], by_key[strategies[0], epochs]["accuracy"]
    gain = after - before
    reached = {kind: _first_round(metrics, kind, target) for kind in ("initial", "personalized")}
    summary = {
        **common,
        **{"rounds": rounds, "strategy": strategies[0], "personalization_epochs": epochs, "test_clients": clients},
        "test_clients_without_test_data": without_test_data,
        "initial_accuracy": _spread(before),
        "personalized_accuracy": _spread(after),
        "gain": {"mean": gain.mean(), "sd": gain.std(ddof=0)},
        "share_gaining": (gain > 0).mean(),
        "share_hurt": (gain < 0).mean(),
        "share_unchanged": (gain == 0).mean(),
        "strategies": {},
        "rounds_to_target": {"target_accuracy": target, **reached},
        "times": {"wall_seconds": 700.0 + seed, "train_seconds": 600.0, "evaluation_seconds": 100.0 + seed}
        | {"examples_per_second": 1000.0 + 10 * seed},
    }
    _write_json(directory / "summary.json", summary)
    return directory


def _client_rows(rng, strategies, epochs, clients, without_test_data) -> pd.DataFrame:
    train = np.clip(rng.lognormal(4.6, 0.6, clients).astype(int), 5, 400)
    test = np.maximum(train // 5, 3)
    test[rng.permutation(clients)[:without_test_data]] = 0
    skill = np.clip(rng.normal(0.76, 0.12, clients), 0.05, 0.98)
    right = rng.binomial(test, skill)
    rows = []
    for number, strategy in enumerate(strategies):
        limit = np.clip(rng.normal(0.86 - 0.04 * number, 0.05, clients) + 0.0003 * train, 0, 1)
        now = right
        for epoch in range(epochs + 1):
            if epoch:
                now = np.clip(now + rng.binomial(np.maximum(np.round(limit * test).astype(int) - now, 0), 0.5), 0, test)
                now = np.maximum(now - rng.binomial(1, 0.08, clients) * (test > 0), 0)
            for client in range(clients):
                accuracy = now[client] / test[client] if test[client] else np.nan
                loss = 2.0 * (1 - accuracy)
                rows.append((f"writer_{client:03d}", strategy, epoch, accuracy, loss, train[client], test[client]))
    columns = ["client", "strategy", "epoch", "accuracy", "loss", "train_examples", "test_examples"]
    return pd.DataFrame(rows, columns=columns)


def _round_rows(rng, stages, strategy, epochs) -> tuple[pd.DataFrame, pd.DataFrame]:
    names = [name for name, count in stages for _ in range(count)]
    metrics, evaluations = [], []
    for number, stage in enumerate(names, start=1):
        initial = 0.79 * (1 - np.exp(-number / 18)) + rng.normal(0, 0.015) + 0.03 * (stage == "reptile")
        accuracies = {"initial_accuracy": initial, "personalized_accuracy": initial + 0.08 + 0.3 * np.exp(-number / 15)}
        if number % 5:
            accuracies = dict.fromkeys(accuracies, np.nan)
        else:
            for epoch, accuracy in ((0, accuracies["initial_accuracy"]), (epochs, accuracies["personalized_accuracy"])):
                rows = pd.DataFrame({"accuracy": [accuracy], "test_examples": [20], "loss": [1.0]})
                evaluations.append(_aggregates(number, "test_sample", strategy, epoch, rows, rows))
        counts = {"clients": 10, "examples": 1000, "train_loss": 1.0, "train_accuracy": 0.7, "non_finite_clients": 0}
        metrics.append({"round": number, "stage": stage, **counts, **accuracies})
    return pd.DataFrame(metrics), pd.DataFrame(evaluations)


def _aggregates(number, split, strategy, epoch, rows, initial) -> dict:
    accuracy, weights = rows["accuracy"], rows["test_examples"]
    gain = accuracy - initial["accuracy"]
    return {
        **{"round": number, "split": split, "strategy": strategy, "epoch": epoch, "clients": len(rows)},
        "accuracy_mean": accuracy.mean(),
        "accuracy_weighted_mean": (accuracy * weights).sum() / weights.sum(),
        "accuracy_sd": accuracy.std(ddof=0),
        **{f"accuracy_q{round(100 * q):02d}": accuracy.quantile(q) for q in QUANTILES},
        "loss_mean": rows["loss"].mean(),
        "gain_mean": gain.mean(),
        "share_gaining": (gain > 0).mean(),
        "share_hurt": (gain < 0).mean(),
    }


def _histogram_rows(strategy, epoch, rows) -> list[dict]:
    # In whole numbers, so that 7 right of 10 falls into the bin that starts at 0.7.
    right = np.rint(rows["accuracy"] * rows["test_examples"]).astype(int)
    counts = np.bincount(np.minimum(right * BINS // rows["test_examples"], BINS - 1), minlength=BINS)
    return [
        {"strategy": strategy, "epoch": epoch, "bin_low": i / BINS, "bin_high": (i + 1) / BINS, "clients": counts[i]}
        for i in range(BINS)
    ]


def _decomposition_rows(rounds, epochs) -> list[dict]:
    """Shares that add up to 1, FedSGD's growing with the round, and cosines that fall from epoch to epoch."""
    rows = []
    for number, epoch in itertools.product(range(10, rounds + 1, 10), range(1, epochs + 1)):
        first = (0.1 + 0.2 * number / rounds) * epochs / epoch
        for part in range(epoch + 1):
            share = first if part == 0 else (1 - first) / epoch
            place = {"round": number, "epochs": epoch, "part": part}
            measures = {"relative_norm": share, "cosine_with_fed_sgd": 1 - 0.2 * part, "share": share}
            rows += [{**place, "level": level, **measures} for level in ("client", "cohort")]
    return rows


def _first_round(metrics, kind, target) -> int | None:
    reached = metrics["round"][metrics[f"{kind}_accuracy"] >= target]
    return int(reached.iloc[0]) if len(reached) else None


def _spread(accuracy: pd.Series) -> dict:
    quantiles = {f"{q:g}": accuracy.quantile(q) for q in QUANTILES}
    return {
        "mean": accuracy.mean(),
        "weighted_mean": accuracy.mean(),
        "sd": accuracy.std(ddof=0),
        "quantiles": quantiles,
    }


def _write_json(path: pathlib.Path, value: dict) -> None:
    path.write_text(json.dumps(value, default=float))


@pytest.fixture(scope="session")
def written_run(tmp_path_factory) -> Callable[..., pathlib.Path]:
    """As `write_run`, but copies a run that another test wrote with the same name and settings."""
    written: dict[str, pathlib.Path] = {}

    def write(directory: pathlib.Path, **settings) -> pathlib.Path:
        key = repr((directory.name, sorted(settings.items())))
        if key not in written:
            written[key] = write_run(tmp_path_factory.mktemp("written") / directory.name, **settings)
        return shutil.copytree(written[key], directory)

    return write


@pytest.fixture
def make_run(tmp_path, written_run) -> Callable[..., pathlib.Path]:
    """Writes a run directory with the given name and settings of `write_run`, and returns its path."""

    def make(name: str = "run_1", **settings) -> pathlib.Path:
        return written_run(tmp_path / "runs" / name, **settings)

    return make


@pytest.fixture
def make_study(tmp_path, written_run) -> Callable[..., pathlib.Path]:
    """Writes an experiment of a study, its runs as (label, overrides, settings of `write_run`); returns the study."""

    def make(experiment: str, planned: list[tuple[str, dict, dict]]) -> pathlib.Path:
        directory, entries = tmp_path / "study", []
        for number, (label, overrides, settings) in enumerate(planned):
            name = f"{experiment}_{number}"
            written_run(directory / "runs" / name, given=overrides, **settings)
            entries.append({"run": name, "label": label, "overrides": overrides})
        about = {"title": experiment, "paper": "Table 1", "claim": "T1", "question": "?", "scale": "small", "order": 1}
        (directory / experiment).mkdir()
        _write_json(directory / experiment / "experiment.json", {**about, "runs": entries})
        return directory

    return make
