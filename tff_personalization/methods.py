"""The methods, which train a global model, by name. Adding one is one line here."""

import importlib

from tff_personalization import registries
from tff_personalization.algorithms.method import Method
from tff_personalization.settings import OpenChoices

# A module with a METHOD, or the method itself.
METHODS: OpenChoices["str | Method"] = OpenChoices(
    {
        "fed_avg": "tff_personalization.algorithms.fed_avg",
        "reptile": "tff_personalization.algorithms.reptile",
        "personalized_fed_avg": "tff_personalization.algorithms.personalized_fed_avg",
        "fomaml": "tff_personalization.algorithms.fomaml",
        "maml": "tff_personalization.algorithms.maml",
        "per_fed_avg": "tff_personalization.algorithms.per_fed_avg",
        "meta_sgd": "tff_personalization.algorithms.meta_sgd",
        "ifca": "tff_personalization.algorithms.ifca",
        "fed_recon": "tff_personalization.algorithms.fed_recon",
        "fed_per": "tff_personalization.algorithms.fed_per",
        "fed_rep": "tff_personalization.algorithms.fed_rep",
        "fed_bn": "tff_personalization.algorithms.fed_bn",
        "fed_babu": "tff_personalization.algorithms.fed_babu",
        "fed_ala": "tff_personalization.algorithms.fed_ala",
        "fed_rod": "tff_personalization.algorithms.fed_rod",
        "fed_proto": "tff_personalization.algorithms.fed_proto",
        "fed_amp": "tff_personalization.algorithms.fed_amp",
        "ditto": "tff_personalization.algorithms.ditto",
        "p_fed_me": "tff_personalization.algorithms.p_fed_me",
        "apfl": "tff_personalization.algorithms.apfl",
        "fed_prox": "tff_personalization.algorithms.fed_prox",
        "scaffold": "tff_personalization.algorithms.scaffold",
        "mime_lite": "tff_personalization.algorithms.mime_lite",
        "fed_sgd": "baselines.fed_sgd",
        "fed_avg_terms": "baselines.fed_avg_terms",
        "centralized": "baselines.centralized",
        "local_only": "baselines.local_only",
    }
)


def get(name: str) -> Method:
    """The method with this name in `METHODS`."""
    method = METHODS[name]
    return importlib.import_module(method).METHOD if isinstance(method, str) else method


def register(name: str, method: Method) -> None:
    """Makes a method a choice of `--method`. Raises UserError if the name is taken."""
    registries.add(METHODS, "method", name, method, Method)
