"""The paper's claims. Each is a comparison that was stated here before its runs; `claims` gives verdicts on them.

Those called X were added after the results of the others were seen, and are corrected by themselves.

An experiment can have several runs with the same label and seed, such as second stages with several rates. Then one of
them is compared: the run whose last model has the best personalized accuracy on validation clients.
"""

import dataclasses
import functools
from typing import Any

from analysis import claim_measures, inference, setting_measures

ACCURACY_MARGIN = 0.01  # of accuracies, gains and their standard deviations
SHARE_MARGIN = 0.05  # of shares of clients, of rounds, of an update
LEAST_SEEDS_AS_UNITS = 6  # if seeds are the unit


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim as a comparison.

    Attributes:
        id: such as "C2.1".
        experiment: the experiment whose runs are compared.
        statement: the claim, in a sentence.
        metric: the metric; the effect is a difference of it.
        measure: the values whose mean is the effect, by seed; `(experiment, chosen) -> measure`.
        margin: a difference within ± this one does not matter, in the unit of the metric.
        unit: the unit of the interval's resamples.
        least_seeds: the number of seeds that a verdict needs.
        synthetic: whether it is only about synthetic writers.
    """

    id: str
    experiment: str
    statement: str
    metric: str
    measure: claim_measures.Measure
    margin: float = ACCURACY_MARGIN
    unit: str = "client"
    least_seeds: int = inference.LEAST_SEEDS
    synthetic: bool = False

    @property
    def of_paper(self) -> str:
        """The paper's claim to which it belongs, such as "C2"."""
        return self.id.split(".")[0]

    @property
    def family(self) -> tuple[str, bool]:
        """The claims that Holm's method corrects together: those of one claim of the paper, on one kind of data."""
        return self.of_paper, self.synthetic


def _paired(ours: str, theirs: str, metric: str = "personalized", **overrides: Any) -> claim_measures.Measure:
    """Our runs with a label and overrides, minus theirs with another label."""
    groups = {"ours": {"label": ours, **overrides}, "theirs": {"label": theirs, **overrides}}
    return functools.partial(claim_measures.paired, **groups, metric=metric)


CLAIMS = (
    Claim(
        "T1.1",
        "spread",
        "Initial accuracy varies more from run to run than personalized accuracy.",
        "standard deviation over seeds, mean of settings (cohort and E): initial minus personalized accuracy",
        setting_measures.spread_over_seeds,
        unit="seed (jackknife)",
        least_seeds=LEAST_SEEDS_AS_UNITS,
    ),
    Claim(
        "T1.2",
        "table1",
        "After the same number of rounds, more local epochs, up to 10, make the model more personalizable.",
        "personalized accuracy: the largest E (up to 10) minus the smallest",
        setting_measures.more_local_epochs,
    ),
    Claim(
        "T1.3",
        "table1",
        "Personalized accuracy reaches the target in fewer rounds than initial accuracy.",
        "rounds to the target: initial minus personalized accuracy, as a share of all rounds",
        setting_measures.rounds_saved,
        SHARE_MARGIN,
        "setting",
    ),
    Claim(
        "C1.1",
        "terms",
        "FOMAML's share of FedAvg's update grows with E.",
        "share of FOMAML's terms in updates from the same models: the largest E minus the smallest",
        setting_measures.share_of_fomaml,
        SHARE_MARGIN,
        "round whose model was kept",
    ),
    Claim(
        "C1.2",
        "terms",
        "After the same number of rounds at the same rates, FOMAML's terms alone train a more personalizable model "
        "than FedSGD's.",
        "personalized accuracy",
        _paired("FOMAML's terms alone", "FedSGD's term alone"),
    ),
    Claim(
        "C2.1",
        "fine_tuning",
        "After the same number of rounds, Personalized FedAvg has a higher initial accuracy than FedAvg.",
        "initial accuracy",
        _paired("Personalized FedAvg", "FedAvg", "initial"),
    ),
    Claim(
        "C2.2",
        "fine_tuning",
        "After the same number of rounds, Personalized FedAvg has a higher personalized accuracy than FedAvg.",
        "personalized accuracy",
        _paired("Personalized FedAvg", "FedAvg"),
    ),
    Claim(
        "C2.3",
        "fine_tuning",
        "Choosing a model by initial accuracy alone gives weaker personalization.",
        "personalized accuracy: the model with the best personalized accuracy minus the one with the best initial "
        "accuracy, both on validation clients",
        claim_measures.chosen_by_initial,
    ),
    Claim(
        "C2.4",
        "fine_tuning",
        "After the same number of examples, Personalized FedAvg has a higher initial accuracy than FedAvg.",
        "initial accuracy, of FedAvg in the first kept round after at least as many examples",
        functools.partial(claim_measures.after_as_many_examples, metric="initial"),
    ),
    Claim(
        "C2.5",
        "fine_tuning",
        "After the same number of examples, Personalized FedAvg has a higher personalized accuracy than FedAvg.",
        "personalized accuracy, of FedAvg in the first kept round after at least as many examples",
        functools.partial(claim_measures.after_as_many_examples, metric="personalized"),
    ),
    Claim(
        "C2.6",
        "quiet_fine_tuning",
        "C2.1 holds where FedAvg's rounds vary little: cohorts of 20, E = 5.",
        "initial accuracy",
        _paired("Personalized FedAvg", "FedAvg", "initial"),
    ),
    Claim(
        "C2.7",
        "quiet_fine_tuning",
        "C2.2 holds where FedAvg's rounds vary little: cohorts of 20, E = 5.",
        "personalized accuracy",
        _paired("Personalized FedAvg", "FedAvg"),
    ),
    Claim(
        "C3.1",
        "centralized",
        "After the same number of examples, FedAvg's model is more personalizable than one of pooled SGD.",
        "personalized accuracy",
        _paired("FedAvg", "pooled SGD"),
    ),
    Claim(
        "C3.2",
        "centralized",
        "After the same number of examples, FedAvg's model gains more than one of pooled SGD.",
        "gain",
        _paired("FedAvg", "pooled SGD", "gain"),
    ),
    Claim(
        "C3.3",
        "centralized",
        "At the same initial accuracy, FedAvg's model is more personalizable than one of pooled SGD.",
        "personalized accuracy, of pooled SGD between the two rounds between which it has that initial accuracy",
        functools.partial(claim_measures.at_matched_initial, other="pooled SGD"),
    ),
    Claim(
        "C3.4",
        "centralized",
        "After the same number of examples, FedAvg's model is more personalizable than one of pooled Adam.",
        "personalized accuracy",
        _paired("FedAvg", "pooled Adam"),
    ),
    Claim(
        "C3.5",
        "centralized",
        "C3.1 holds with strategy, epoch and learning rate chosen on validation clients for each.",
        "personalized accuracy",
        functools.partial(claim_measures.as_chosen, theirs="pooled SGD"),
    ),
    Claim(
        "C3.7",
        "centralized",
        "C3.4 holds with strategy, epoch and learning rate chosen on validation clients for each.",
        "personalized accuracy",
        functools.partial(claim_measures.as_chosen, theirs="pooled Adam"),
    ),
    Claim(
        "C3.8",
        "centralized",
        "At the same initial accuracy, FedAvg's model is more personalizable than one of pooled Adam.",
        "personalized accuracy, of pooled Adam between the two rounds between which it has that initial accuracy",
        functools.partial(claim_measures.at_matched_initial, other="pooled Adam"),
    ),
    Claim(
        "C3.9",
        "centralized",
        "After the same number of examples, FedAvg's model is more personalizable than one of pooled SGD with "
        "momentum.",
        "personalized accuracy",
        _paired("FedAvg", "pooled SGD, momentum"),
    ),
    *(
        Claim(
            f"X.{number}",
            "early_rounds",
            f"When a model of {pooled} first has FedAvg's initial accuracy, FedAvg's model is more personalizable.",
            f"personalized accuracy, of {pooled} between the two rounds between which it has that initial accuracy",
            functools.partial(claim_measures.at_matched_initial, other=pooled, in_every_round=True),
        )
        for number, pooled in enumerate(("pooled Adam", "pooled SGD, momentum"), start=1)
    ),
    *(
        Claim(
            f"C3.6 (h = {h:g})",
            "heterogeneity",
            f"Synthetic writers of heterogeneity {h:g}: FedAvg's model is more personalizable than one of pooled SGD.",
            "personalized accuracy",
            _paired("FedAvg", "pooled SGD", writer_heterogeneity=h),
            synthetic=True,
        )
        for h in (0.0, 0.5, 1.0, 2.0)
    ),
    Claim(
        "P.1",
        "personalization",
        "A model trained with SGD clients is better personalized with SGD than with Adam.",
        "personalized accuracy",
        functools.partial(
            claim_measures.strategies,
            label="trained with SGD",
            first="fine_tune",
            second="fine_tune_adam",
            metric="personalized",
        ),
    ),
    Claim(
        "P.2",
        "personalization",
        "A model trained with Adam clients is better personalized with Adam than with SGD.",
        "personalized accuracy",
        functools.partial(
            claim_measures.strategies,
            label="trained with Adam",
            first="fine_tune_adam",
            second="fine_tune",
            metric="personalized",
        ),
    ),
    Claim(
        "W.1",
        "who_gains",
        "Most clients gain from personalization.",
        "share of clients that gain, minus 0.5",
        claim_measures.most_gain,
        SHARE_MARGIN,
    ),
    Claim(
        "W.2",
        "who_gains",
        "Clients with more examples gain more.",
        "gain: the half of the clients with more train examples minus the other half",
        claim_measures.more_examples,
    ),
    Claim(
        "W.3",
        "who_gains",
        "Early stopping on examples held back hurts fewer clients.",
        "share of clients hurt: without minus with early stopping",
        functools.partial(
            claim_measures.strategies,
            label="Personalized FedAvg",
            first="fine_tune",
            second="fine_tune_early_stopping",
            metric="hurt",
        ),
        SHARE_MARGIN,
    ),
    Claim(
        "S.1",
        "server_optimizers",
        "After the same number of rounds, server momentum makes FedAvg's model more personalizable.",
        "personalized accuracy",
        _paired("momentum", "SGD"),
    ),
    Claim(
        "L.1",
        "shakespeare",
        "Personalization raises accuracy on the lines of a role.",
        "gain",
        claim_measures.gain,
    ),
)
