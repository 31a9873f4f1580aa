"""Evaluates models that a run has kept on its test clients: how personalizable the global model was at other rounds.

    python run_experiment.py --rounds_per_model=10 …
    python -m tff_personalization.tools.judge_rounds RUN --rounds=20,40

Writes RUN/by_round.csv: one row for each round, test client and epoch of the main strategy, like clients.csv for the
last round. Rounds that are in it already do not change.
"""

import pathlib
from collections.abc import Iterable, Sequence

import pandas as pd
import tqdm
from absl import flags

from tff_personalization import errors, startup
from tff_personalization.programs import client_evaluation, final_evaluation
from tff_personalization.records import files, finished_run, run_records

FILE = "by_round.csv"


def judge(run: pathlib.Path, rounds: Iterable[int]) -> pd.DataFrame:
    """The rows of a run's by_round.csv, including those of `rounds`.

    Raises:
        UserError: it is not a run directory, a model of one of the rounds was not kept, or its data cannot be read.
    """
    opened = finished_run.FinishedRun.open(run)
    judged: list[pd.DataFrame] = []
    models = {
        round_number: opened.global_weights(round_number)
        for round_number in sorted(set(rounds) - set(opened.by_round["round"]))
    }
    if models:
        _ = opened.recorded_clients  # refuses a run that released only aggregates
        main, clients = opened.experiment.config.strategies[:1], opened.data.split.test
        seed = opened.experiment.config.evaluation_seed
        evaluator = client_evaluation.PersonalizationEvaluator(
            opened.experiment, opened.model, opened.data, next(iter(models.values()))
        )
        with opened.computing():
            for round_number, weights in models.items():
                with tqdm.tqdm(total=len(clients), desc=f"Round {round_number}", unit="client") as bar:
                    result = evaluator.evaluate(weights, clients, round_number, bar, strategies=main, seed=seed)
                judged.append(final_evaluation.AtRound(round_number, result).clients_table(main[0]))
    there = run_records.read(run).by_round  # again, because another process may have judged other rounds meanwhile
    judged = [table for table in judged if not set(table["round"]) & set(there["round"])]
    table = pd.concat([there, *judged] if len(there) else judged, ignore_index=True)
    return table.sort_values("round", kind="stable", ignore_index=True)


def _main() -> None:
    rounds = flags.DEFINE_list(
        "rounds", None, "Rounds to evaluate; the run must have kept their models.", required=True
    )

    def main(argv: Sequence[str]) -> int:
        if len(argv) != 2:
            raise errors.UserError("a run directory is expected: judge_rounds RUN --rounds=10,20")
        run = pathlib.Path(argv[1])
        try:
            wanted = [int(text) for text in rounds.value]
        except ValueError:
            wanted = []
        if not wanted:
            raise errors.UserError(f"--rounds={','.join(rounds.value)}: give numbers of rounds, as in 10,20.")
        files.check_writable(run)
        table = judge(run, wanted)
        files.write_text(run / FILE, table.to_csv(index=False))
        epochs = sorted(table["epoch"].unique())
        means = table.pivot_table(index="round", columns="epoch", values="accuracy")[[epochs[0], epochs[-1]]]
        print(means.set_axis(["initial", "personalized"], axis=1).round(4).to_string())
        return 0

    startup.run_main(main)


if __name__ == "__main__":
    _main()
