"""What a round of each method costs beside FedAvg: processor time, visits of examples, bytes.

    python -m benchmarks.methods                                  # all methods, 3 rounds each
    python -m benchmarks.methods --methods=ditto,apfl --repetitions=5

Every method trains the paper's network on the same five synthetic writers, with its default rates and E = 2 or K = 10.
All five train in each round, so clients that keep states have them from the first round that counts.
FedBN needs a network with normalization; "fed_avg-cnn_group_norm" is FedAvg with that one. The methods take turns, a
round each, so other work of the machine affects all of them alike: compare ratios. `processor_seconds` are those of
this process and of TFF's worker. `methods.csv` in --output_dir gets a row for each method and round, with the bytes
that a client receives, sends and keeps (see algorithms/communication.py); bytes that depend on the cohort are missing.
"""

import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

from benchmarks import recording
from tff_personalization import methods
from tff_personalization.algorithms import communication, method, stateful_clients
from tff_personalization.execution import runtime, worker_binary
from tff_personalization.experiment import config
from tff_personalization.experiment import setup as setup_lib
from tff_personalization.tasks import federated_data

WARM_UP = 2  # rounds
NORMALIZED = "cnn_group_norm"
_SHARED = {"num_clients": 9, "test_clients": 4, "clients_per_round": 5, "rounds": 100}
_OF_METHODS: dict[str, dict[str, Any]] = {"personalized_fed_avg": {"stage_2_round": 2}, "fed_bn": {"model": NORMALIZED}}
REFERENCE = "fed_avg"
NAMES = (*(name for name in methods.METHODS if name != "local_only"), f"{REFERENCE}-{NORMALIZED}")


@dataclasses.dataclass
class Contender:
    """A method in training: the states of the server and the clients after its last round, and its number."""

    training: method.Training
    stage: method.Stage
    state: Any = None
    client_states: dict[str, Any] = dataclasses.field(default_factory=dict)
    rounds: int = 0

    def round(self) -> int:
        """Does a round and returns its visits of examples."""
        process = self.stage.process
        if self.state is None:
            self.state = process.initialize()
        self.rounds += 1
        cohort = self.training.cohort(self.rounds)
        if isinstance(process, stateful_clients.StatefulProcess):
            kept = [self.client_states.get(member, process.client_state) for member in cohort.members]
            output = process.next(self.state, cohort.values, kept)
            self.client_states |= zip(cohort.members, output.client_states, strict=True)
        else:
            output = process.next(self.state, cohort.values)
        self.state = output.state
        measured = output.metrics["client_work"]
        return int(measured["examples"]) + int(measured["extra_examples"])


def contender(name: str) -> Contender:
    """The method of one of `NAMES`, before its first round."""
    of_method, _, model = name.partition("-")
    settings = _SHARED | _OF_METHODS.get(of_method, {}) | ({"model": model} if model else {})
    fields = methods.get(of_method).settings.flags()
    for flag, value in (("local_epochs", 2), ("local_steps", 10)):
        if flag in fields:
            settings[flag] = value
    experiment = config.from_settings({"method": of_method, **settings})
    training = methods.get(of_method).build(setup_lib.setup(experiment, federated_data.load(experiment.config)))
    return Contender(training, training.stages[-1])


def measure(names: Sequence[str], repetitions: int) -> pd.DataFrame:
    """One row per method and round, after `WARM_UP` rounds of each."""
    contenders = {name: contender(name) for name in names}
    sent = {name: communication.of_process(one.stage.process)._asdict() for name, one in contenders.items()}
    rows = []
    for turn in range(WARM_UP + repetitions):
        print(f"  turn {turn + 1} of {WARM_UP + repetitions}", flush=True)
        for name, one in contenders.items():
            before, started = recording.processor_seconds(), time.perf_counter()
            visits = one.round()
            seconds = time.perf_counter() - started
            processor_seconds = recording.processor_seconds() - before
            if turn >= WARM_UP:
                rows.append(
                    {
                        "method": name,
                        "repetition": turn - WARM_UP,
                        "seconds": round(seconds, 4),
                        "processor_seconds": round(processor_seconds, 2),
                        "visits": visits,
                        **{f"bytes_{way}": number for way, number in sent[name].items()},
                    }
                )
    return pd.DataFrame(rows)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Per method: the mean of the rounds' ratios to FedAvg's round of the same turn, and visits and bytes likewise."""
    of_reference = table[table["method"] == REFERENCE].set_index("repetition")
    rows = {}
    for name, of_method in table.groupby("method", sort=False):
        turns = of_method.set_index("repetition")
        ratios = turns["processor_seconds"] / of_reference["processor_seconds"]
        rows[name] = {
            "processor time": ratios.mean(),
            "least": ratios.min(),
            "most": ratios.max(),
            "visits": turns["visits"].sum() / of_reference["visits"].sum(),
            **{way: turns[f"bytes_{way}"].iloc[0] / 1e6 for way in ("down", "up", "kept")},
        }
    return pd.DataFrame(rows).T


def main() -> None:
    parser = recording.parser(__doc__, 3, "rounds of each method that count")
    parser.add_argument("--methods", default="", help="which methods, separated by commas; all unless given")
    options = parser.parse_args()
    chosen = recording.chosen(parser, "methods", options.methods, NAMES) if options.methods else list(NAMES)
    names = list(dict.fromkeys([REFERENCE, *chosen]))
    print(f"{len(names)} methods, {worker_binary.available_cores()} cores", flush=True)
    with open(os.devnull, "wb") as log, runtime.execution_context(log=log):
        table = measure(names, options.repetitions)
    print(summarize(table).round(2).to_string(), flush=True)
    recording.write(table, options.output_dir / "methods.csv")


if __name__ == "__main__":
    main()
