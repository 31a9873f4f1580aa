"""The names of methods, strategies, tasks and optimizers in pictures and sentences.

The keys are their names on the command line.
"""

METHODS = {
    "fed_avg": "FedAvg",
    "reptile": "Reptile",
    "personalized_fed_avg": "Personalized FedAvg",
    "fomaml": "FOMAML",
    "maml": "MAML",
    "per_fed_avg": "Per-FedAvg",
    "meta_sgd": "Meta-SGD",
    "ifca": "IFCA",
    "fed_recon": "FedRecon",
    "fed_per": "FedPer",
    "fed_rep": "FedRep",
    "fed_bn": "FedBN without running statistics",
    "fed_babu": "FedBABU",
    "fed_ala": "FedALA",
    "fed_rod": "FedRoD",
    "fed_proto": "FedProto",
    "fed_amp": "FedAMP",
    "ditto": "Ditto",
    "p_fed_me": "pFedMe",
    "apfl": "APFL",
    "fed_prox": "FedProx",
    "scaffold": "SCAFFOLD",
    "mime_lite": "MimeLite",
    "fed_sgd": "FedSGD",
    "fed_avg_terms": "FedAvg, one term",
    "centralized": "pooled training",
    "local_only": "local only",
}
STRATEGIES = {
    "fine_tune": "fine-tuning",
    "fine_tune_head": "fine-tuning, last layer",
    "fine_tune_biases": "fine-tuning, biases",
    "fine_tune_adam": "fine-tuning, Adam",
    "fine_tune_early_stopping": "fine-tuning, early stopping",
    "ditto": "Ditto, personal step",
    "p_fed_me": "pFedMe, personal step",
    "apfl": "APFL, personal step",
    "knn_per": "kNN-Per",
    "knn_per_tuned": "kNN-Per, tuned",
    "meta_sgd": "Meta-SGD rates",
    "best_cluster": "best cluster",
    "reconstruct": "reconstruction",
    "reconstruct_head": "reconstruction, head only",
    "local_only": "local only",
}


KEPT = ("kept", "own model")
"""What participants keep, beside the strategies: in records and in pictures."""
TASKS = {
    "emnist62": "62 characters",
    "emnist10": "10 digits",
    "shakespeare": "next character of a role",
    "cifar100": "CIFAR-100",
    "stackoverflow": "next word",
}
NETWORKS = {
    "cnn_group_norm": "group normalization",
}
OPTIMIZERS = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "adagrad": "Adagrad",
    "yogi": "Yogi",
    "rmsprop": "RMSprop",
}


def method(name: str, network: str = "") -> str:
    """The name of a method, or of its stage, in pictures. A plugin's name is not changed.

    Args:
        name: the method.
        network: the network that it trains, if the name shall say that too.
    """
    return ", ".join(filter(None, [METHODS.get(name, name), NETWORKS.get(network, network)]))


def strategy(name: str) -> str:
    """The name of a strategy in pictures. A plugin's name is not changed."""
    return KEPT[1] if name == KEPT[0] else STRATEGIES.get(name, name)


def task(name: str) -> str:
    """The name of what a task predicts, in pictures. A plugin's name is not changed."""
    return TASKS.get(name, name)


def optimizer(name: str) -> str:
    """The name of an optimizer in pictures. A plugin's name is not changed."""
    return OPTIMIZERS.get(name, name)
