"""A plugin's strategy, optimizer or aggregator that returns nonsense is named in one line, with what was expected."""

import numpy as np
import pytest
import tensorflow_federated as tff

from tff_personalization import aggregators, errors, optimizers
from tff_personalization.models import emnist_cnn
from tff_personalization.personalization import adaptation, evaluation, strategies
from tff_personalization.settings import Group

ODD_CURVES = {
    "nothing": (lambda loss, correct: None, "gives a NoneType; an adaptation.Curve is expected"),
    "one tensor": (lambda loss, correct: loss, "an adaptation.Curve is expected"),
    "too few epochs": (
        lambda loss, correct: (loss[1:], correct[1:]),
        r"loss_sum as float32 of shape \(2,\); float32 of shape \(3,\)",
    ),
    "another type": (lambda loss, correct: (loss, loss), r"correct as float32 of shape \(3,\); int32 of shape \(3,\)"),
    "scalars": (lambda loss, correct: (loss[0], correct[0]), r"loss_sum as float32 of shape \(\)"),
}


@pytest.mark.parametrize(("odd", "said"), ODD_CURVES.values(), ids=ODD_CURVES)
def test_a_strategy_that_gives_no_curve_is_named_with_what_was_expected(odd, said, monkeypatch):
    def curve(client, tuning):
        return odd(*adaptation.Curve(*strategies.STRATEGIES["fine_tune"].curve(client, tuning)))

    monkeypatch.setitem(strategies.STRATEGIES, "odd", adaptation.Strategy("of a test", curve))
    with pytest.raises(errors.UserError, match=f"--strategies: odd .*{said}"):
        evaluation.build_personalization_evaluation(
            emnist_cnn.build_linear(3, np.random.default_rng(1)),
            tff.learning.optimizers.build_sgdm(0.1),
            epochs=2,
            batch_size=4,
            strategies=["odd"],
            release="records",
        )


def odd_optimizer(step):
    """A builder of plain gradient descent whose step is another."""

    class Odd(tff.learning.optimizers.Optimizer):
        def initialize(self, specs):
            return ()

        def next(self, state, weights, gradients):
            return step(state, weights)

    return lambda learning_rate: Odd()


ODD_OPTIMIZERS = {
    "no optimizer": (lambda: lambda learning_rate: None, "gives a NoneType; a tff.learning.optimizers.Optimizer"),
    "weights without a state": (
        lambda: odd_optimizer(lambda state, weights: [*weights]),
        r"next gives a list; \(state, weights\)",
    ),
    "one tensor": (
        lambda: odd_optimizer(lambda state, weights: (state, weights[:1])),
        r"gives float32\[2\] as weights; float32\[2\], float32\[1, 1\], as before",
    ),
    "another type": (
        lambda: odd_optimizer(lambda state, weights: (state, [w.numpy().astype("float64") for w in weights])),
        r"gives float64\[2\], float64\[1, 1\] as weights; float32",
    ),
    "another state": (lambda: odd_optimizer(lambda state, weights: (1, weights)), r"gives int32\[\] as state; nothing"),
    "no numbers": (
        lambda: odd_optimizer(lambda state, weights: (state, [w * float("nan") for w in weights])),
        "not finite",
    ),
}


@pytest.mark.parametrize(("make", "said"), ODD_OPTIMIZERS.values(), ids=ODD_OPTIMIZERS)
def test_an_optimizer_whose_step_is_none_is_named_with_what_was_expected(make, said, monkeypatch):
    monkeypatch.setattr(optimizers, "OPTIMIZERS", dict(optimizers.OPTIMIZERS))
    optimizers.register("odd", make())
    with pytest.raises(errors.UserError, match=f"optimizer 'odd': .*{said}") as refusal:
        optimizers.SERVER.of({"server_optimizer": "odd", "server_learning_rate": 0.1})
    assert "\n" not in str(refusal.value)


def odd_factory(make):
    """A factory whose processes are what `make` makes of a type of deltas."""

    class Odd(tff.aggregators.WeightedAggregationFactory):
        def create(self, value_type, weight_type):
            return make(value_type, weight_type)

    return Odd()


def a_sum_of_weights(value_type, weight_type):
    """A process that makes one number of deltas."""
    return tff.aggregators.SumFactory().create(weight_type)


ODD_AGGREGATORS = {
    "nothing": (lambda: None, "builds a NoneType; a tff.aggregators.WeightedAggregationFactory is expected"),
    "a factory of unweighted means": (
        lambda: tff.aggregators.UnweightedMeanFactory(),
        "builds a UnweightedMeanFactory; .* wrap it in tff.aggregators.as_weighted_aggregator",
    ),
    "no process": (lambda: odd_factory(lambda *_: 1), "creates a int; a tff.templates.AggregationProcess"),
    "a number": (
        lambda: odd_factory(a_sum_of_weights),
        r"makes float32 of the clients' deltas; <float32\[2\],float32>, the type of one delta",
    ),
}


@pytest.mark.parametrize(("make", "said"), ODD_AGGREGATORS.values(), ids=ODD_AGGREGATORS)
def test_an_aggregator_that_makes_no_delta_is_named_with_what_was_expected(make, said, monkeypatch):
    odd = aggregators.Aggregator("of a test", lambda *_: make())
    monkeypatch.setitem(aggregators.AGGREGATORS, "odd", odd)
    deltas = tff.to_type([(np.float32, [2]), np.float32])
    with pytest.raises(errors.UserError, match=f"--aggregator=odd: .*{said}"):
        aggregators.build("odd", Group(), 3).create(deltas, tff.TensorType(np.float32))
