"""Setups from which tests build learning processes."""

from tff_personalization import optimizers
from tff_personalization.algorithms import method

RATE, BATCH = 0.1, 4


def sgd(learning_rate=RATE, momentum=None):
    """SGD as the value of a setting."""
    return optimizers.OptimizerSpec("sgd", learning_rate, {} if momentum is None else {"momentum": momentum})


def setup(module, model, *, rounds=1, aggregator=None, shuffle=False, **settings):
    """The setup of a module's method. By default examples stay in order, and the server takes over the mean."""
    group = module.METHOD.settings
    defaults = {"client": sgd(), "server": sgd(1.0), "batch_size": BATCH}
    settings = {name: value for name, value in defaults.items() if name in group.parts()} | settings
    return method.Setup(model, group(**settings), rounds, aggregator, shuffle)
