"""The measures of claims about training settings and about updates; see `claim_measures`."""

import pandas as pd

from analysis import claim_measures, study
from analysis import runs as runs_lib


def spread_over_seeds(experiment: study.Experiment, chosen: bool) -> claim_measures.Measured:
    """Per seed: its part of the standard deviation over seeds of initial accuracy minus that of personalized accuracy.

    The difference is averaged over the settings (cohort and E) that have all seeds. All settings of a seed have the
    same clients, so a seed is the unit. Its value is the jackknife's pseudo-value: n times the figure of all n seeds
    minus n − 1 times that of the others.
    """
    table = _means(experiment, chosen)
    if chosen and table.empty:
        return claim_measures.NOTHING_CHOSEN
    every = {
        name: table.pivot(index=["cohort", "epochs"], columns="seed", values=name)
        for name in ("initial", "personalized")
        if len(table)
    }
    by_setting = {name: values.dropna() for name, values in every.items()}
    seeds = list(by_setting["initial"].columns) if by_setting else []
    if len(seeds) < 3 or by_setting["initial"].empty:
        return claim_measures.Measured([], missing="No setting with three seeds.")

    def of(chosen_seeds: list[int]) -> float:
        spread = {name: values[chosen_seeds].std(axis=1, ddof=1).mean() for name, values in by_setting.items()}
        return spread["initial"] - spread["personalized"]

    count, whole = len(seeds), of(seeds)
    pseudo = [count * whole - (count - 1) * of([other for other in seeds if other != seed]) for seed in seeds]
    compared = by_setting["initial"].index
    runs = tuple(
        entry.run
        for entry in experiment.entries
        if (entry.overrides["clients_per_round"], entry.overrides["local_epochs"]) in compared
    )
    lacking = every["initial"].index.difference(compared)
    names = ", ".join(f"{cohort:g} clients with E = {epochs:g}" for cohort, epochs in lacking)
    note = f"Left out, because not all {count} seeds have them: {names}." if names else ""
    return claim_measures.Measured([pd.Series({"all settings": value}) for value in pseudo], runs, note=note)


def _means(experiment: study.Experiment, chosen: bool) -> pd.DataFrame:
    rows = []
    for entry in experiment.entries:
        record = entry.run.summary.get("validation_round") if chosen else entry.run.summary
        if record:
            means = {name: record[f"{name}_accuracy"]["mean"] for name in ("initial", "personalized")}
            of = entry.overrides
            rows.append({"cohort": of["clients_per_round"], "epochs": of["local_epochs"], "seed": entry.seed, **means})
    return pd.DataFrame(rows)


def more_local_epochs(experiment: study.Experiment, chosen: bool) -> claim_measures.Measured:
    """Per client, in the largest cohort: personalized accuracy with the largest E up to 10 minus the smallest E's."""
    tried = [(entry.overrides["clients_per_round"], entry.overrides["local_epochs"]) for entry in experiment.entries]
    cohort = max((cohort for cohort, _ in tried), default=0)
    epochs = sorted({epochs for of, epochs in tried if of == cohort and epochs <= 10})
    if len(epochs) < 2:
        return claim_measures.Measured([], missing="No two E up to 10.")
    most, least = ({"clients_per_round": cohort, "local_epochs": e} for e in (epochs[-1], epochs[0]))
    return claim_measures.paired(experiment, chosen, ours=most, theirs=least, metric="personalized")


@claim_measures.of_last_round
def rounds_saved(experiment: study.Experiment) -> claim_measures.Measured:
    """Per setting: the rounds that personalized accuracy reaches the target earlier than initial accuracy.

    They are a share of all rounds. If initial accuracy never reaches the target, all rounds count. Runs in which
    neither does are left out.
    """
    by_seed: dict[int, dict[str, float]] = {}
    compared = []
    for entry in experiment.entries:
        reached, rounds = entry.run.summary["rounds_to_target"], entry.run.summary["rounds"]
        if reached["initial"] is None and reached["personalized"] is None:
            continue
        initial, personalized = (
            rounds if reached[kind] is None else reached[kind] for kind in ("initial", "personalized")
        )
        flags = sorted(f"--{flag}={value}" for flag, value in entry.overrides.items() if flag != "seed")
        setting = " ".join([entry.label, *flags])
        by_seed.setdefault(entry.seed, {})[setting] = (initial - personalized) / rounds
        compared.append(entry.run)
    left_out = len(experiment.entries) - len(compared)
    note = f"In {left_out} of {len(experiment.entries)} runs neither accuracy reached the target." if left_out else ""
    values = [pd.Series(values) for values in by_seed.values()]
    return claim_measures.Measured(values, tuple(compared), "No run reached the target.", note=note)


@claim_measures.of_last_round
def share_of_fomaml(experiment: study.Experiment) -> claim_measures.Measured:
    """Per model: the share of FOMAML's terms in a cohort's update of the largest E minus that of the smallest E.

    The models are those that the run with the largest E has kept. Both updates start from the same model."""
    by_seed: dict[int, dict[int, runs_lib.Run]] = {}
    for entry in experiment.entries:
        if entry.label == "FedAvg" and (entry.run.directory / "decomposition.csv").exists():
            by_seed.setdefault(entry.seed, {})[entry.overrides["local_epochs"]] = entry.run
    values, compared = [], []
    for by_epochs in by_seed.values():
        if len(by_epochs) > 1:
            run = by_epochs[max(by_epochs)]
            table = run.decomposition_by_epochs
            first = table[(table["level"] == "cohort") & (table["part"] == 0)]
            shares = 1 - first.pivot(index="round", columns="epochs", values="share")
            values.append((shares[max(by_epochs)] - shares[min(by_epochs)]).dropna())
            compared.append(run)
    return claim_measures.Measured(values, tuple(compared), "No two E whose updates were decomposed.")
