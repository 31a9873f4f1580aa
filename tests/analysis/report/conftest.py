"""A small study with synthetic numbers, in the form of the experiments."""

import json
import pathlib

import numpy as np
import pandas as pd
import pytest

from analysis import claims
from analysis.report import __main__ as report
from tests.analysis.conftest import write_run

NASTY = "<script>alert(1)</script>"
_COMMON = {"stages": (("fed_avg", 20),), "strategies": ("fine_tune",), "epochs": 2, "clients": 12, "method": "fed_avg"}


def write_experiment(study: pathlib.Path, name: str, cells: dict[str, dict | None], **record) -> pathlib.Path:
    """Writes an experiment with a run for each name, with settings of `write_run`; None: the run has not begun."""
    planned = []
    for run, settings in cells.items():
        flags = (settings or {}).pop("given", {})
        if settings is not None:
            write_run(study / "runs" / run, flags=flags, given=flags, **{**_COMMON, **settings})
        planned.append({"run": run, "label": "", "overrides": flags})
    (study / name).mkdir(parents=True)
    words = {"title": name.capitalize(), "question": f"What of {name}?", "scale": "smoke"}
    record = {"name": name, **words, "runs": planned, **record}
    (study / name / "experiment.json").write_text(json.dumps(record))
    return study / name


def write_gallery(run: pathlib.Path, client: str) -> None:
    """Writes a gallery of one client with an image of each outcome."""
    images = np.arange(4 * 28 * 28, dtype=np.int64).reshape(4, 28, 28).astype(np.uint8)
    np.savez(
        run / "gallery.npz",
        images=images,
        labels=np.array([0, 1, 2, 1]),
        before=np.array([1, 1, 0, 1]),
        after=np.array([0, 2, -1, 1]),
        client=np.full(4, client),
        classes=np.array(["a", "b", "<i>"]),
    )


def write_choice(run: pathlib.Path) -> None:
    """Writes choice.csv with two learning rates, the second better by 0.1."""
    rows = [
        {"learning_rate": rate, "strategy": "fine_tune", "epoch": epoch, "accuracy_mean": 0.6 + rate + 0.01 * epoch}
        for rate in (0.01, 0.11)
        for epoch in range(3)
    ]
    pd.DataFrame(rows).assign(chosen=False).to_csv(run / "choice.csv", index=False)


def verdict(**changes) -> dict:
    """A record of verdicts.json."""
    return {
        **{
            "id": "C2.1",
            "claim": "C2",
            "statement": "Personalized FedAvg is ahead.",
            "metric": "personalized accuracy",
        },
        **{"unit": "client, nested in seed", "test": "95 % percentile bootstrap", "effect": 0.012, "low": 0.004},
        **{"high": 0.02, "verdict": "supported", "why": "The interval is above zero.", "experiment": "fine_tuning"},
        **{"runs": ["fed_avg"], "data": "synthetic handwriting", "synthetic": True, "seeds": 2, **changes},
    }


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> pathlib.Path:
    """Table 1 with two configurations, two seeds and an unfinished run; fine-tuning; another experiment."""
    place = tmp_path_factory.mktemp("study")
    cells = {
        f"E{epochs}_seed{seed}": {"seed": seed, "given": {"clients_per_round": 20, "local_epochs": epochs}}
        for epochs in (5, 10)
        for seed in (1, 2)
    }
    cells["unfinished"] = {"seed": 3, "finished": False, "given": {"clients_per_round": 20, "local_epochs": 5}}
    cells["later"] = None
    write_experiment(place, "table1", cells, paper="Table 1", order=1)
    methods = {
        "fed_avg": {"seed": 1, "given": {"local_epochs": 5}},
        "two_stages": {"seed": 5, "method": "personalized_fed_avg", "stages": (("fed_avg", 10), ("reptile", 10))},
        "slow": {"seed": 4, "given": {"local_epochs": 2}, "release": "aggregates"},
    }
    methods["two_stages"]["given"] = {"stage_2_round": 11}
    write_experiment(place, "fine_tuning", methods, claim="C2", order=2)
    write_choice(place / "runs" / "fed_avg")
    clients = place / "runs" / "fed_avg" / "clients.csv"
    clients.write_text(clients.read_text().replace("writer_003", NASTY))
    write_gallery(place / "runs" / "fed_avg", NASTY)
    write_experiment(place, "my_own", {"alone": {"seed": 1}}, title=f"My {NASTY}", question="", order=3)
    verdicts = [
        verdict(),
        verdict(id="C2.2", verdict="not decided by this data", effect=0.001, low=-0.003, high=0.005),
        verdict(id="C3.1 (h = 0)", claim="C3", verdict="not supported", effect=-0.01, low=-0.016, high=-0.004),
        verdict(id="C1.1", claim="C1", verdict=claims.NO_RUNS, effect=None, low=None, high=None, runs=[], seeds=0),
    ]
    (place / "verdicts.json").write_text(json.dumps({"verdicts": verdicts, "commit": "0123abc"}))
    return place


@pytest.fixture(scope="session")
def page(study, tmp_path_factory) -> pathlib.Path:
    """The study's report."""
    return report.write(study, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="session")
def run_page(tmp_path_factory) -> pathlib.Path:
    """The page of one run with a gallery, in the run's directory."""
    run = write_run(tmp_path_factory.mktemp("runs") / "my_run", **_COMMON)
    write_gallery(run, "writer_003")
    return report.write(run)
