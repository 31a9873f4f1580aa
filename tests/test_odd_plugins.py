"""A plugin's strategy, optimizer or aggregator that returns nonsense is named in one line, with what was expected."""

import numpy as np
import pytest
import tensorflow_federated as tff

from tff_personalization import aggregators, errors, optimizers
from tff_personalization.algorithms import client_work, fed_avg, method
from tff_personalization.experiment import config
from tff_personalization.models import emnist_cnn
from tff_personalization.personalization import adaptation, evaluation, strategies
from tff_personalization.settings import Group

ODD_CURVES = {
    "nothing": (lambda loss, correct: None, "gives nothing; an adaptation.Curve is expected"),
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
    "no optimizer": (lambda: lambda learning_rate: None, "gives nothing; a tff.learning.optimizers.Optimizer"),
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
    "nothing": (lambda: None, "builds nothing; a tff.aggregators.WeightedAggregationFactory is expected"),
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


KEPT = (np.zeros([2], np.float32),)
ODD_UPDATES = {
    "nothing": (lambda found: None, r"gives nothing; a client_work.ClientUpdate is expected"),
    "what training gives": (lambda found: found.model_delta, "gives a tuple; a client_work.ClientUpdate"),
    "no state": (
        lambda found: found._replace(state=()),
        r"gives nothing as the client's state; float32\[2\], as before, is expected",
    ),
    "a smaller state": (
        lambda found: found._replace(state=(found.state[0][:1],)),
        r"gives float32\[1\] as the client's state; float32\[2\]",
    ),
    "half a delta": (
        lambda found: found._replace(model_delta=found.model_delta[:1]),
        r"the aggregator makes <float32\[784,3\]>; <float32\[784,3\],float32\[3\]>, the type of the global weights",
    ),
}


def stateful(change, client_state=KEPT, server_state=client_work.NO_SERVER_STATE):
    """A process whose clients do FedAvg's update, changed by a function."""
    setup = method.Setup(emnist_cnn.build_linear(3, np.random.default_rng(1)), fed_avg.Settings())
    training = setup.local_training()

    def update(theta, client, state):
        found = client_work.update_from(theta, training.train_epochs(theta, client, 1), report=theta)
        return change(found._replace(state=state.client))

    return setup.stateful_process(update, "uniform", client_state, server_state=server_state)


@pytest.mark.parametrize(("change", "said"), ODD_UPDATES.values(), ids=ODD_UPDATES)
def test_an_update_that_is_none_is_refused_with_what_was_expected(change, said):
    with pytest.raises(errors.UserError, match=f"the method's update .*{said}"):
        stateful(change)


def test_a_state_of_the_server_that_changes_its_shape_is_refused():
    server_state = client_work.ServerState(lambda: KEPT, lambda state, report: report)
    with pytest.raises(
        errors.UserError, match=r"ServerState gives float32\[784, 3\].* as state; float32\[2\], as before"
    ):
        stateful(lambda found: found, server_state=server_state)


def test_a_state_of_clients_that_is_no_array_is_refused():
    with pytest.raises(errors.UserError, match="client_state has a float; a structure of NumPy arrays is expected"):
        stateful(lambda found: found, client_state=0.0)


@pytest.mark.parametrize("odd", ["fine_tune", ("fine_tunee",), ()])
def test_a_method_whose_strategies_are_none_is_refused(odd):
    mine = method.Method("of a test", fed_avg.Settings, fed_avg.METHOD.build, strategies=odd)
    with pytest.raises(
        errors.UserError, match=r"--method=mine: Method has strategies=.*; a tuple of names of strategies"
    ):
        config._by_default("mine", mine)
