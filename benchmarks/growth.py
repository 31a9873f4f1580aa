"""How speed and memory grow with clients, epochs and evaluations.

    python -m benchmarks.growth                          # all sweeps, about 10 minutes on two cores
    python -m benchmarks.growth --sweeps=cohort,evaluation

| sweep | what grows | the rest |
|---|---|---|
| `cohort` | clients in a round | FedAvg, 40 examples a client, 1 local epoch |
| `population` | clients in total | FedAvg, cohorts of 20, 10 examples a client, 1 local epoch |
| `local_epochs` | E of FedAvg | cohorts of 20, 180 examples a client |
| `evaluation` | evaluated clients | 40 train and 10 test examples a client, 1 epoch of fine-tuning |
| `client_cost` | cohort and local steps | Reptile; `round_cost` computes the cost of a round, a client and a step |

The network is the paper's with dropout, batches have 20 examples, pixels are random. Every point has its own process
(`benchmarks.growth_point`), which takes the client data from the product's cache and does one round to warm up (for
`local_epochs`, with two clients).
`growth.csv` in --output_dir has a row for each point, with the versions and the commit.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd

from benchmarks import growth_point, recording
from benchmarks.growth_point import Point

SWEEPS: dict[str, list[Point]] = {
    "cohort": [
        Point("cohort", clients, clients, examples=40, rounds=rounds)
        for clients, rounds in ((5, 9), (20, 9), (100, 3), (500, 1), (1000, 1))
    ],
    "population": [Point("population", 20, population, examples=10, rounds=9) for population in (100, 3_400, 100_000)],
    "local_epochs": [
        Point("local_epochs", 20, 20, examples=180, rounds=3, local_epochs=epochs, warm_up_clients=2)
        for epochs in (1, 2, 5, 10, 20)
    ],
    "evaluation": [
        Point("evaluation", clients, clients, 40, rounds=3, method=growth_point.EVALUATION, test_examples=10)
        for clients in (20, 100, 900)
    ],
    "client_cost": [
        Point("client_cost", clients, clients, 180, rounds=9, method="reptile", local_steps=steps)
        for clients in (2, 20)
        for steps in (1, 10)
    ],
}
_SHOWN = {
    "clients": "clients",
    "population": "population",
    "local_epochs": "E",
    "local_steps": "K",
    "rounds": "rounds",
    "seconds": "seconds",
    "per_second": "per s",
    "load_seconds": "load (s)",
    "first_round_seconds": "first (s)",
    "python_mb": "Python (MB)",
    "worker_mb": "worker (MB)",
}


def row(point: Point, measured: dict) -> dict:
    """A row of growth.csv, from a point and its result of `growth_point.measure`.

    `seconds` is the median of the rounds; `seconds_least` and `seconds_most` are their extremes. `visits` is the count
    of a round, and `per_second` is that count divided by the median.
    """
    seconds = measured["seconds"]
    median = statistics.median(seconds)
    return {
        **dataclasses.asdict(point),
        "visits": point.visits,
        "seconds": round(median, 4),
        "seconds_least": round(min(seconds), 4),
        "seconds_most": round(max(seconds), 4),
        "per_second": round(point.visits / median, 2),
        **{name: round(measured[name], 3) for name in ("load_seconds", "first_round_seconds")},
        **{name: round(measured[name]) for name in ("python_mb", "worker_mb")},
        "versions": recording.words(measured["versions"]),
    }


def round_cost(table: pd.DataFrame) -> tuple[float, float, float]:
    """The cost of a round, from the sweep `client_cost`: seconds ≈ a + clients × (b + K × c).

    Least squares of the relative errors, over the sweep's rows.

    Returns:
        a, b and c in seconds, for a round, a client in it, and a local step of a client. All cores work, so on two
        cores a step uses one core for 2 × c.
    """
    rows = table[table["sweep"] == "client_cost"]
    clients, steps, seconds = (rows[name].to_numpy(float) for name in ("clients", "local_steps", "seconds"))
    terms = np.stack([np.ones_like(clients), clients, clients * steps], axis=1)
    a, b, c = np.linalg.lstsq(terms / seconds[:, np.newaxis], np.ones_like(seconds), rcond=None)[0]
    return float(a), float(b), float(c)


def _run(point: Point, cache_dir: str) -> dict | None:
    """Measures a point in its own process. If that fails, prints why and returns None."""
    growth_point.archive(point, cache_dir)
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth_point", cache_dir, json.dumps(dataclasses.asdict(point))],
        cwd=recording.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    measured = recording.answer(process.stdout.splitlines())
    if measured is None:
        last = (process.stderr.strip().splitlines() or ["nothing said"])[-1]
        print(f"{point} does not run (status {process.returncode}: {last}), left out", flush=True)
        return None
    return row(point, measured)


def main() -> int:
    parser = recording.parser(__doc__)
    parser.add_argument("--sweeps", default=",".join(SWEEPS), help="which sweeps, separated by commas")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as cache_dir:
        for sweep in recording.chosen(parser, "sweeps", options.sweeps, SWEEPS):
            print(
                f"\n{sweep}, {SWEEPS[sweep][0].unit} per second\n" + "".join(f"{name:>13}" for name in _SHOWN.values()),
                flush=True,
            )
            for point in SWEEPS[sweep]:
                measured = _run(point, cache_dir)
                if measured is not None:
                    rows.append(measured)
                    print("".join(f"{measured[name]:>13}" for name in _SHOWN), flush=True)
    table = pd.DataFrame(rows)
    if not rows:
        return 1
    if (table["sweep"] == "client_cost").sum() == len(SWEEPS["client_cost"]):
        a, b, c = (1000 * seconds for seconds in round_cost(table))
        print(f"\nmilliseconds of a round ≈ {a:.1f} + clients × ({b:.1f} + K × {c:.2f})", flush=True)
    recording.write(table, options.output_dir / "growth.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
