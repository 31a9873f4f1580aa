"""The paper's claims. Each is a comparison that was stated here before the runs; `claims` gives verdicts on them.

If an experiment has several runs with the same label and seed, such as second stages with several rates, the one is
compared whose last model has the best personalized accuracy on validation clients.
"""

import dataclasses
from collections.abc import Callable

from analysis import claim_measures, inference, setting_measures, study

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
        unit: the unit of the interval's resamples.
        measure: the values whose mean is the effect, by seed; `(experiment, chosen) -> measure`.
        margin: a difference within ± this one does not matter, in the unit of the metric.
        least_seeds: the number of seeds that a verdict needs.
        synthetic: whether it is only about synthetic writers.
    """

    id: str
    experiment: str
    statement: str
    metric: str
    unit: str
    measure: Callable[[study.Experiment, bool], claim_measures.Measured]
    margin: float = ACCURACY_MARGIN
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


_CLIENT = "client"
_FED_AVG, _PERSONALIZED_FED_AVG = {"label": "FedAvg"}, {"label": "Personalized FedAvg"}
_paired = claim_measures.paired

CLAIMS = (
    Claim(
        "T1.1",
        "spread",
        "Initial accuracy varies more from run to run than personalized accuracy.",
        "standard deviation over seeds, mean of settings (cohort and E): of initial less of personalized accuracy",
        "seed (jackknife)",
        setting_measures.spread_over_seeds,
        least_seeds=LEAST_SEEDS_AS_UNITS,
    ),
    Claim(
        "T1.2",
        "table1",
        "After as many rounds, more local epochs, up to 10, make the model more personalizable.",
        "personalized accuracy: with the largest E up to 10 less with the smallest",
        _CLIENT,
        setting_measures.more_local_epochs,
    ),
    Claim(
        "T1.3",
        "table1",
        "Personalized accuracy reaches the target in fewer rounds than initial accuracy.",
        "rounds to the target: of initial less of personalized accuracy, as a share of all rounds",
        "setting",
        setting_measures.rounds_saved,
        SHARE_MARGIN,
    ),
    Claim(
        "C1.1",
        "terms",
        "FOMAML's share of FedAvg's update grows with E.",
        "share of FOMAML's terms in updates from the same models: with the largest E less with the smallest",
        "round whose model was kept",
        setting_measures.share_of_fomaml,
        SHARE_MARGIN,
    ),
    Claim(
        "C1.2",
        "terms",
        "After as many rounds at the same rates, FOMAML's terms alone train a more personalizable model than FedSGD's.",
        "personalized accuracy",
        _CLIENT,
        _paired({"label": "FOMAML's terms alone"}, {"label": "FedSGD's term alone"}, "personalized"),
    ),
    Claim(
        "C2.1",
        "fine_tuning",
        "Personalized FedAvg has a higher initial accuracy than FedAvg after as many rounds.",
        "initial accuracy",
        _CLIENT,
        _paired(_PERSONALIZED_FED_AVG, _FED_AVG, "initial"),
    ),
    Claim(
        "C2.2",
        "fine_tuning",
        "Personalized FedAvg has a higher personalized accuracy than FedAvg after as many rounds.",
        "personalized accuracy",
        _CLIENT,
        _paired(_PERSONALIZED_FED_AVG, _FED_AVG, "personalized"),
    ),
    Claim(
        "C2.3",
        "fine_tuning",
        "Choosing a model by initial accuracy alone gives weaker personalization.",
        "personalized accuracy: of the model that is best by personalized less of that best by initial accuracy, "
        "both on validation clients",
        _CLIENT,
        claim_measures.chosen_by_initial,
    ),
    Claim(
        "C2.4",
        "fine_tuning",
        "Personalized FedAvg has a higher initial accuracy than FedAvg after as many examples.",
        "initial accuracy, of FedAvg in the first kept round after as many examples",
        _CLIENT,
        claim_measures.after_as_many_examples("Personalized FedAvg", "FedAvg", "initial"),
    ),
    Claim(
        "C2.5",
        "fine_tuning",
        "Personalized FedAvg has a higher personalized accuracy than FedAvg after as many examples.",
        "personalized accuracy, of FedAvg in the first kept round after as many examples",
        _CLIENT,
        claim_measures.after_as_many_examples("Personalized FedAvg", "FedAvg", "personalized"),
    ),
    Claim(
        "C2.6",
        "quiet_fine_tuning",
        "C2.1 holds where FedAvg's rounds vary little: cohorts of 20, E = 5.",
        "initial accuracy",
        _CLIENT,
        _paired(_PERSONALIZED_FED_AVG, _FED_AVG, "initial"),
    ),
    Claim(
        "C2.7",
        "quiet_fine_tuning",
        "C2.2 holds where FedAvg's rounds vary little: cohorts of 20, E = 5.",
        "personalized accuracy",
        _CLIENT,
        _paired(_PERSONALIZED_FED_AVG, _FED_AVG, "personalized"),
    ),
    Claim(
        "C3.1",
        "centralized",
        "After as many examples, FedAvg's model is more personalizable than one of pooled SGD.",
        "personalized accuracy",
        _CLIENT,
        _paired(_FED_AVG, {"label": "pooled SGD"}, "personalized"),
    ),
    Claim(
        "C3.2",
        "centralized",
        "After as many examples, FedAvg's model gains more than one of pooled SGD.",
        "gain",
        _CLIENT,
        _paired(_FED_AVG, {"label": "pooled SGD"}, "gain"),
    ),
    Claim(
        "C3.3",
        "centralized",
        "At the same initial accuracy, FedAvg's model is more personalizable than one of pooled SGD.",
        "personalized accuracy, of pooled SGD between the two rounds between which it has that initial accuracy",
        _CLIENT,
        claim_measures.at_matched_initial("FedAvg", "pooled SGD"),
    ),
    Claim(
        "C3.4",
        "centralized",
        "After as many examples, FedAvg's model is more personalizable than one of pooled Adam.",
        "personalized accuracy",
        _CLIENT,
        _paired(_FED_AVG, {"label": "pooled Adam"}, "personalized"),
    ),
    Claim(
        "C3.5",
        "centralized",
        "C3.1 holds with strategy, epoch and learning rate chosen on validation clients for each.",
        "personalized accuracy",
        _CLIENT,
        claim_measures.as_chosen("FedAvg", "pooled SGD"),
    ),
    Claim(
        "C3.7",
        "centralized",
        "C3.4 holds with strategy, epoch and learning rate chosen on validation clients for each.",
        "personalized accuracy",
        _CLIENT,
        claim_measures.as_chosen("FedAvg", "pooled Adam"),
    ),
    Claim(
        "C3.8",
        "centralized",
        "At the same initial accuracy, FedAvg's model is more personalizable than one of pooled Adam.",
        "personalized accuracy, of pooled Adam between the two rounds between which it has that initial accuracy",
        _CLIENT,
        claim_measures.at_matched_initial("FedAvg", "pooled Adam"),
    ),
    Claim(
        "C3.9",
        "centralized",
        "After as many examples, FedAvg's model is more personalizable than one of pooled SGD with momentum.",
        "personalized accuracy",
        _CLIENT,
        _paired(_FED_AVG, {"label": "pooled SGD, momentum"}, "personalized"),
    ),
    *(
        Claim(
            f"C3.6 (h = {h:g})",
            "heterogeneity",
            f"Synthetic writers of heterogeneity {h:g}: FedAvg's model is more personalizable than one of pooled SGD.",
            "personalized accuracy",
            _CLIENT,
            _paired(
                {"label": "FedAvg", "writer_heterogeneity": h},
                {"label": "pooled SGD", "writer_heterogeneity": h},
                "personalized",
            ),
            synthetic=True,
        )
        for h in (0.0, 0.5, 1.0, 2.0)
    ),
    Claim(
        "P.1",
        "personalization",
        "A model trained with SGD clients is better personalized with SGD than with Adam.",
        "personalized accuracy",
        _CLIENT,
        claim_measures.strategies("trained with SGD", "fine_tune", "fine_tune_adam", "personalized"),
    ),
    Claim(
        "P.2",
        "personalization",
        "A model trained with Adam clients is better personalized with Adam than with SGD.",
        "personalized accuracy",
        _CLIENT,
        claim_measures.strategies("trained with Adam", "fine_tune_adam", "fine_tune", "personalized"),
    ),
    Claim(
        "W.1",
        "who_gains",
        "Most clients gain from personalization.",
        "share of clients that gain, less a half",
        _CLIENT,
        claim_measures.most_gain,
        SHARE_MARGIN,
    ),
    Claim(
        "W.2",
        "who_gains",
        "Clients with more examples gain more.",
        "gain: of the half of the clients with more train examples less of the other half",
        _CLIENT,
        claim_measures.more_examples,
    ),
    Claim(
        "W.3",
        "who_gains",
        "Early stopping on examples held back hurts fewer clients.",
        "share of clients hurt: without less with early stopping",
        _CLIENT,
        claim_measures.strategies("Personalized FedAvg", "fine_tune", "fine_tune_early_stopping", "hurt"),
        SHARE_MARGIN,
    ),
    Claim(
        "S.1",
        "server_optimizers",
        "Server momentum makes FedAvg's model more personalizable after as many rounds.",
        "personalized accuracy",
        _CLIENT,
        _paired({"label": "momentum"}, {"label": "SGD"}, "personalized"),
    ),
    Claim(
        "L.1",
        "shakespeare",
        "Personalization raises accuracy on the lines of a role.",
        "gain",
        _CLIENT,
        claim_measures.gain({"label": "FedAvg"}),
    ),
)
