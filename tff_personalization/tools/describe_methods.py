"""Writes docs/methods.md: each method and strategy, its source and flags, and the possible combinations.

    python -m tff_personalization.tools.describe_methods > docs/methods.md

It reads the registries and the module docstrings.
"""

import importlib
import re
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from tff_personalization import aggregators, cohorts, methods
from tff_personalization.algorithms import method
from tff_personalization.experiment import settings
from tff_personalization.personalization import adaptation, strategies

_HEAD = """# Methods and strategies

A method (`--method`) trains the global model. A strategy (`--strategies`, several with commas) adapts it to each
client. To add your own, see [extending.md](extending.md). This page is generated from the code by
`python -m tff_personalization.tools.describe_methods`.
"""
# "Nichol et al. (2018)", "Finn, Abbeel, Levine (2017", "Mironov (2017)", "arXiv 1909.12488"
_NAME = r"[A-Z][\w-]+"
_NAMES = rf"(?:{_NAME} et al\.|{_NAME}(?:, {_NAME})*(?:,? and {_NAME})?)"
_CITATION = rf"{_NAMES},? \(?(?:19|20)\d\d\)?|arXiv[ :]\d{{4}}\.\d{{5}}"
_COHORT = tuple(cohorts.WithStragglers.parts())
_READ_BY_ALL = (
    "Besides these flags, every run reads the flags of data and evaluation. Methods that train also read `--rounds`, "
    "and strategies read `--personalization_epochs`. "
    "*client*, *server* and so on stand for all flags of that optimizer, such as `--client_learning_rate`. *cohort* "
    "stands for "
    f"{' '.join(f'`--{name}`' for name in _COHORT)}."
)

_WHOM = "both"
_FORMS = (
    "The table says for which clients a method or strategy is made, and how it differs from its source with default "
    "settings. *Both* means held-out clients and participants. Held-out clients are evaluated with strategies. "
    "Participants (`--participants`) are evaluated with the same strategies and, if they keep models, with these too "
    "(`kept`). If a method is for *participants*, its source says nothing about clients that did not train. The files' "
    "docstrings say more. (θ is the global model.)"
)

_LEFT_OUT = (
    "**FedPAC** (Xu, Tong, Huang, ICLR 2023, [arXiv 2306.11867](https://arxiv.org/abs/2306.11867)) is made for a few "
    "institutions, and does not fit many small clients. In each round, every client sends its head, its class "
    "frequencies and its mean features of each class. The server then solves a quadratic program for each client to "
    "mix the heads. No sum over clients can replace these programs. A held-out client gets no mixture. A writer with "
    "two or three examples of a class has no reliable mean of its features. `fed_proto` also aligns features, and in "
    "`fed_amp` similar clients also help each other.\n\n"
    "**FedBN with batch normalization.** Batch normalization sets its running means and variances by averages and not "
    "by gradients. So every local loop, optimizer, aggregator and server step of the other methods would need an "
    "exception for these statistics. Therefore `fed_bn` uses a normalization without running statistics, such as that "
    "of `--model=cnn_group_norm`."
)


def page() -> str:
    """The contents of docs/methods.md."""
    trained = {name: methods.get(name) for name in methods.METHODS}
    chosen = strategies.STRATEGIES
    parts = [
        _HEAD,
        "## Methods\n",
        _table(
            ("`--method=`", "what it is", "source", "flags it reads", "strategies by default"),
            (
                (f"`{name}`", m.description, _source(_module(name)), _reads(m), _flags(m.strategies, ""))
                for name, m in trained.items()
            ),
        ),
        f"{_READ_BY_ALL}\n",
        "## Strategies\n",
        _table(
            ("`--strategies=`", "what it does", "source", "flags it reads", "what it needs"),
            (
                (f"`{name}`", s.description, _source(_module_of_strategy(s)), _reads(s), _needs(s))
                for name, s in chosen.items()
            ),
        ),
        "## How near to their sources\n",
        f"{_FORMS}\n",
        _table(
            ("name", "kind", "source", "for which clients", "differences from the source"),
            (
                *((f"`{name}`", "method", _papers(_module(name)), m.serves, m.differs) for name, m in trained.items()),
                *(
                    (f"`{name}`", "strategy", _papers(_module_of_strategy(s)), _WHOM, s.differs)
                    for name, s in chosen.items()
                ),
            ),
        ),
        "## Left out, and why\n",
        f"{_LEFT_OUT}\n",
        "## What can be combined\n",
        "Every model can be evaluated with every strategy, with these exceptions:\n",
        *(
            f"- `{name}` needs {s.needs}, so it works only with {', '.join(f'`--method={m}`' for m in makers)}."
            for name, s in chosen.items()
            if len(makers := [m for m, trained_method in trained.items() if trained_method.fits(s.needs)])
            < len(trained)
        ),
        "",
        "## Aggregators\n",
        "Methods that read `--aggregator` accept all of these, with a few exceptions that a message explains.\n",
        _table(
            ("`--aggregator=`", "what it is", "flags it reads", "clients' weights"),
            (
                (f"`{name}`", a.description, _reads(a), "the method's" if a.weighted else "uniform")
                for name, a in aggregators.AGGREGATORS.items()
            ),
        ),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _needs(strategy: adaptation.Strategy) -> str:
    """What a strategy needs from the method and the model."""
    one_label = "one label for each example (not for text)" if strategy.one_label else ""
    return ", ".join(filter(None, [strategy.needs, one_label]))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def _reads(choice: method.Method | adaptation.Strategy | aggregators.Aggregator) -> str:
    return _flags(choice.settings.parts())


def _flags(names: Iterable[str], dashes: str = "--") -> str:
    names = list(names)
    if set(_COHORT) <= set(names):
        first = names.index(_COHORT[0])
        names = [name for name in names if name not in _COHORT]
        names.insert(first, "cohort")
    return " ".join(f"*{name}*" if name in ("cohort", *settings.roles()) else f"`{dashes}{name}`" for name in names)


def _module(method: str) -> types.ModuleType:
    """The module that `METHODS` names for a method, or that defines the method's function."""
    named = methods.METHODS[method]
    return importlib.import_module(named) if isinstance(named, str) else _module_of(named.build)


def _module_of(function: Callable[..., Any]) -> types.ModuleType:
    return sys.modules[getattr(function, "func", function).__module__]  # the function inside functools.partial


def _module_of_strategy(strategy: adaptation.Strategy) -> types.ModuleType:
    """The module of this package that has the strategy under a name, or that defines the strategy's function."""
    modules = [module for module in vars(strategies).values() if isinstance(module, types.ModuleType)]
    owners = [module for module in modules if any(value is strategy for value in vars(module).values())]
    return owners[0] if owners else _module_of(strategy.curve)


def _papers(module: types.ModuleType) -> str:
    cited = re.findall(_CITATION, " ".join((module.__doc__ or "").split()))
    return ", ".join(dict.fromkeys(re.sub(r"[()]", "", one) for one in cited))


def _source(module: types.ModuleType) -> str:
    """The papers that a module docstring names, with the file."""
    papers = _papers(module)
    file = f"[file](../{module.__name__.replace('.', '/')}.py)"
    return f"{papers} ({file})" if papers else file


if __name__ == "__main__":
    sys.stdout.write(page())
