"""Every setting of a run: one dataclass, from whose fields the flags are made, and the roles of optimizers."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from tff_personalization import aggregators, methods, optimizers
from tff_personalization.algorithms import client_work
from tff_personalization.execution import runtime
from tff_personalization.personalization import evaluation, strategies
from tff_personalization.tasks import partitions, registry

ROLES = {
    role.prefix: role
    for role in (
        optimizers.Role("client", "takes a client's local steps", "sgd", {"sgd": 0.02, "adam": 0.002}, scheduled=True),
        optimizers.Role(
            "server",
            "applies the mean model delta to the global model",
            "sgd",
            {"sgd": 1.0, "adam": 0.001},
            {"momentum": 0.9},
            scheduled=True,
        ),
        optimizers.Role("stage_2_server", "is the server's in the second stage", "adam", {"sgd": 1.0, "adam": 0.001}),
        optimizers.Role(
            "base",
            "takes the local steps of mime_lite, its state the server's",
            "sgd",
            {"sgd": 0.02, "adam": 0.002},
            {"momentum": 0.9},
        ),
        optimizers.Role(
            "personalization", "fine-tunes the global model on a client", "sgd", {"sgd": 0.02, "adam": 0.002}
        ),
    )
}


def _setting(theme: str, default: Any, help_text: str | Callable[[], str], **checks: Any) -> Any:
    """A field with the theme and help of its flag, and what its value must be.

    `choices`; `least`, `most`; `positive`: above 0 and finite; `item`: what makes an item of a list from its text, or
    raises ValueError, and what it takes, in words. Choices are the registry itself, and their help a function: a plugin
    may add to them before flags are defined.
    """
    metadata = {"theme": theme, "help": help_text, **checks}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _learning_rate(text: str) -> float:
    rate = float(text)
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError
    return rate


def _number_of_examples(text: str) -> str:
    if text != "all" and int(text) < 0:
        raise ValueError
    return text if text == "all" else str(int(text))


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not 0 < int(port) < 65536:
        raise ValueError
    return text


def _methods() -> dict[str, methods.Method]:
    return {name: methods.get(name) for name in methods.METHODS}


def reads() -> dict[str, dict[str, frozenset[str]]]:
    """What each choice reads of the flags that not all read, by the flag that chooses and the choice's name."""
    return {
        "method": {name: frozenset(method.reads) for name, method in _methods().items()},
        "aggregator": {name: frozenset(choice.reads) for name, choice in aggregators.AGGREGATORS.items()},
        "strategies": {name: strategy.flags for name, strategy in strategies.STRATEGIES.items()},
    }


def _listing(help_text: str, choices: Callable[[], Mapping[str, Any]]) -> Callable[[], str]:
    """A flag's help with what each of its choices is."""
    return lambda: f"{help_text} {'; '.join(f'{name}: {choice.description}' for name, choice in choices().items())}."


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Every setting of a run besides the optimizers; a flag of the same name exists for each field.

    None means: decided from other settings, as the help says.
    """

    task: str = _setting("data", "emnist62", "What is learnt.", choices=tuple(registry.TASKS))
    client_data: str = _setting(
        "data",
        None,
        "Where the clients come from. For emnist62 and emnist10: handwriting (synthetic, generated; the default), "
        "digits (scikit-learn), tff (Federated EMNIST), or the path of a file or folder: a by-writer .npz archive, "
        "LEAF's JSON, TFF's SQLite or HDF5, Parquet, Arrow, pictures, CSV, EMNIST's MATLAB or IDX (docs/data.md). "
        "For shakespeare: plays (the roles of his plays; the default), tff, or the path of TFF's or LEAF's files.",
    )
    cache_dir: str | None = _setting(
        "data",
        None,
        "Where generated, downloaded and read data is kept. Default: TFF's ~/.tff for tff, else the user's cache.",
    )
    num_clients: int = _setting("data", 120, "How many writers --client_data=handwriting generates.", least=2)
    writer_heterogeneity: float = _setting(
        "data", 1.0, "How differently generated writers write: 0, all alike, and upward.", least=0
    )
    deal_examples_at_random: bool = _setting(
        "data", False, "Deal all examples to the clients at random, so that no client has a style: a control."
    )
    partition: str = _setting(
        "data",
        partitions.NATURAL,
        "Whose the examples are: natural, as the data says; or made-up clients. dirichlet: label skew by "
        "--partition_alpha; pathological: --partition_classes a client; quantity: numbers of examples by "
        "--partition_alpha.",
        choices=partitions.CHOICES,
    )
    partition_clients: int | None = _setting(
        "data",
        None,
        "How many clients a partition makes. Default: as many as the data has, or 100 where it names none.",
        least=2,
    )
    partition_alpha: float = _setting(
        "data", 0.5, "α of a partition's Dirichlet distributions: the smaller, the more clients differ.", positive=True
    )
    partition_classes: int = _setting("data", 2, "Classes a client has with --partition=pathological.", least=1)
    test_client_ids: str | None = _setting(
        "data", None, "File of the names of the clients that are held out to test, one a line."
    )
    train_client_ids: str | None = _setting(
        "data", None, "File of the names of the clients that train (or validate), one a line."
    )
    train_clients: int | None = _setting(
        "data", None, "Clients that train. Default: all that are not held out.", least=1
    )
    validation_clients: int = _setting("data", 0, "Clients that validate instead of training.", least=0)
    test_clients: int | None = _setting(
        "data", None, "Clients held out to test. Default: 900 of every 3,400 clients, rounded.", least=1
    )

    method: str = _setting(
        "training",
        "fed_avg",
        _listing("How the global model is trained.", _methods),
        choices=methods.METHODS,
    )
    model: str = _setting(
        "training", None, "The network. Default: cnn, and char_lstm for shakespeare.", choices=registry.MODELS
    )
    rounds: int = _setting("training", 500, "Rounds of training.", least=0)
    clients_per_round: int = _setting("training", 20, "Clients in a cohort.", least=1)
    client_dropout_probability: float = _setting(
        "training", 0.0, "How likely a client of a cohort does not report; a round has one that does.", least=0, most=1
    )
    straggler_probability: float = _setting(
        "training", 0.0, "How likely a client that reports is a straggler.", least=0, most=1
    )
    straggler_step_fraction: float = _setting(
        "training", 0.5, "Share of its local steps that a straggler gets done, rounded up.", least=0.001, most=1
    )
    local_epochs: int = _setting("training", 10, "E of FedAvg(E): a client's passes over its data in a round.", least=1)
    head_epochs: int = _setting(
        "training", 10, "Epochs that train a client's head alone, before the rest is trained.", least=0
    )
    local_steps: int = _setting(
        "training", 10, "K of Reptile(K) and of meta-learning: a client's steps in a round.", least=1
    )
    batch_size: int = _setting("training", 20, "Examples in a training step.", least=1)
    client_weighting: str = _setting(
        "training",
        "examples",
        "What weighs a client's model delta. With --aggregator=dp, whose mean is unweighted, always uniform.",
        choices=client_work.WEIGHTINGS,
    )
    proximal_strength: float = _setting(
        "training", 0.1, "μ of fed_prox: how strongly local training is pulled to the global model.", least=0
    )
    update_term: str = _setting(
        "training",
        "fomaml",
        "Term of FedAvg's update that clients of fed_avg_terms send: fed_sgd, the first gradient, or fomaml, the rest.",
        choices=("fed_sgd", "fomaml"),
    )
    aggregator: str = _setting(
        "training",
        "mean",
        _listing("How the model deltas of a cohort become one.", lambda: aggregators.AGGREGATORS),
        choices=aggregators.AGGREGATORS,
    )
    dp_noise_multiplier: float = _setting(
        "training", 1.0, "Standard deviation of the noise of --aggregator=dp, in units of the clipping norm.", least=0
    )
    query_fraction: float = _setting(
        "training",
        0.5,
        "Share of a client's examples, drawn anew each round, that fomaml, maml and meta_sgd judge the adapted model "
        "on; they adapt it to the others. Each part gets one at least; with 0, or a single example, both get all.",
        least=0,
        most=1,
    )
    inner_learning_rate: float = _setting(
        "training",
        0.02,
        "Learning rate of per_fed_avg's inner step, and of each weight in meta_sgd before it learns better ones.",
        least=1e-6,
    )
    hessian_delta: float = _setting(
        "training",
        0.001,
        "δ of the difference of gradients that is per_fed_avg's product with the Hessian (HF); 0 leaves it out (FO).",
        least=0,
    )
    dp_delta: float | None = _setting(
        "training",
        None,
        "δ of the (ε, δ) that is reported with --aggregator=dp. Default: N^-1.1 for N train clients.",
        least=1e-300,
        most=1,
    )
    stage_2_round: int | None = _setting(
        "training",
        None,
        "First round of the second stage of personalized_fed_avg. Default: as --stage_1_share says.",
        least=2,
    )
    stage_1_share: float | None = _setting(
        "training", None, "Share of the rounds that are its first stage. Default: 0.8.", least=0, most=1
    )
    clusters: int = _setting("training", 3, "k of ifca: the models, one a cluster.", least=1)
    pooled_examples_per_round: int | None = _setting(
        "training", None, "Examples of a round of centralized. Default: as many as FedAvg visits on average.", least=1
    )

    strategies: list[str] = _setting(
        "personalization",
        [],
        _listing("Strategies to evaluate, the main one first. Default: the method's.", lambda: strategies.STRATEGIES),
        choices=strategies.STRATEGIES,
    )
    personalization_epochs: int = _setting(
        "personalization", 5, "Epochs of fine-tuning, evaluated after each.", least=0
    )
    personalization_batch_size: int = _setting("personalization", 20, "Examples in a step of fine-tuning.", least=1)
    personalization_learning_rates: list[float] = _setting(
        "personalization",
        [],
        "Learning rates of the personalization optimizer, one of which is chosen on the validation clients, with the "
        "strategy and the epoch, such as 0.005,0.02,0.1. Default: --personalization_learning_rate alone.",
        item=(_learning_rate, "a positive, finite number"),
    )
    personalization_examples: list[str] = _setting(
        "personalization",
        [],
        "Evaluate in the end also with the train part of each test client cut to so many examples, drawn at random and "
        "the fewer among the more, such as 0,1,5,20,all. Default: with all alone.",
        item=(_number_of_examples, "a number of examples, or all"),
    )
    fine_tune_adam_learning_rate: float = _setting(
        "personalization", 0.002, "Learning rate of --strategies=fine_tune_adam.", positive=True
    )
    early_stopping_fraction: float = _setting(
        "personalization",
        0.2,
        "Share of its train part that a client holds back with --strategies=fine_tune_early_stopping.",
        least=0.01,
        most=0.9,
    )
    ditto_lambda: float = _setting(
        "personalization", 1.0, "λ, how strongly --strategies=ditto is pulled back to the global model.", least=0
    )
    p_fed_me_lambda: float = _setting(
        "personalization", 15.0, "λ, how strongly --strategies=p_fed_me is pulled back to the global model.", least=0
    )
    p_fed_me_steps: int = _setting("personalization", 5, "K, the steps of p_fed_me's inner problem.", least=1)
    p_fed_me_learning_rate: float = _setting(
        "personalization",
        0.02,
        "η of --strategies=p_fed_me: after a batch the model that it is pulled back to goes ηλ of the way to its own.",
        positive=True,
    )
    apfl_alpha: float = _setting(
        "personalization", 0.5, "α, the share of the local model in --strategies=apfl's mixture.", least=0, most=1
    )
    apfl_learn_alpha: bool = _setting(
        "personalization", True, "Let each client learn its α from --apfl_alpha on, on its train part."
    )
    knn_neighbours: int = _setting(
        "personalization", 10, "k, the train examples that vote in --strategies=knn_per.", least=1
    )
    knn_lambda: float = _setting(
        "personalization", 0.5, "λ, the share of the vote in the probabilities of knn_per.", least=0, most=1
    )
    evaluation_release: str = _setting(
        "personalization",
        "records",
        "What clients release: per-client records, or sums alone.",
        choices=evaluation.RELEASES,
    )
    rounds_per_evaluation: int = _setting(
        "personalization", 10, "Rounds between evaluations of the main strategy; 0: only at the end.", least=0
    )
    evaluation_clients: int = _setting(
        "personalization",
        50,
        "Clients of the evaluations between rounds: validation clients, or else a fixed sample of test clients.",
        least=1,
    )
    target_accuracy: float = _setting(
        "personalization", 0.8, "Accuracy for which the summary names the first round that reaches it.", least=0, most=1
    )

    plugin: list[str] = _setting(
        "run",
        [],
        "Your own module, by name or as the path of a .py file, that registers methods, strategies, aggregators or "
        "optimizers (docs/extending.md); several with commas, or the flag several times.",
    )
    seed: int = _setting(
        "run",
        1,
        "Every random choice of the run hangs on it, but for dp's noise and the rounding of compression.",
        least=0,
    )
    rounds_per_checkpoint: int = _setting("run", 10, "Rounds between checkpoints.", least=1)
    rounds_per_model: int = _setting(
        "run", 0, "Rounds between global models that are kept; 0: that of the last round alone.", least=0
    )
    output_dir: str = _setting("run", "runs", "Where run directories are made.")
    run_name: str = _setting("run", "", "Name of the run directory. Default: from method, data, seed and settings.")
    cores: int = _setting("run", 0, "Clients trained at once, one core each; 0: as many as the machine gives.", least=0)
    threads_per_client: int = _setting(
        "run", 0, "Threads of one client's work; 0: one, or all cores where a round is one client.", least=0
    )
    workers: list[str] = _setting(
        "run",
        [],
        "TFF workers on other machines, as host:port,host:port, over which clients are spread (docs/scaling.md). "
        "Default: a worker process on this machine.",
        item=(_address, "an address of the form host:port"),
    )
    clients_per_call: int = _setting(
        "run",
        runtime.CLIENTS_PER_CALL,
        "Clients handed to TFF's worker at once, some 20 MB of its memory each; more are worked on in parts.",
        least=1,
    )
    rounds_from: str | None = _setting(
        "run",
        None,
        "Directory of a finished run with the same rounds, or the same ones before the second stage, such as FedAvg's "
        "for personalized_fed_avg: they are taken over instead of being computed again; no number changes. Runs of a "
        "sweep find it by themselves.",
    )
    plots: bool = _setting("run", True, "Draw the plots of the run at its end.")


def defaults() -> dict[str, Any]:
    """The value of each setting that is not given; None where other settings decide."""
    return {
        field.name: field.default_factory() if callable(field.default_factory) else field.default
        for field in dataclasses.fields(ExperimentConfig)
    }
