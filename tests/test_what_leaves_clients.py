"""What leaves clients, by the computations' types: only sums, in rounds and evaluations that release aggregates."""

import functools

import numpy as np
import pytest
import tensorflow_federated as tff

from tests import setups
from tff_personalization import aggregators
from tff_personalization.algorithms import communication, fed_avg
from tff_personalization.models import emnist_cnn
from tff_personalization.personalization import evaluation

SGD = tff.learning.optimizers.build_sgdm(0.1)
MODEL = emnist_cnn.build_linear(4, np.random.default_rng(0))
SUMS = {"federated_sum", "federated_secure_sum", "federated_secure_sum_bitwidth", "federated_secure_modular_sum"}
STRATEGIES = ("fine_tune", "fine_tune_head", "local_only")


def aggregations(computation):
    """Each step of a computation from clients to the server: its name, and the bytes that a client sends."""
    return [(step.name, communication.num_bytes([step.type])) for step in communication.steps(computation) if step.up]


@functools.cache
def process_of(name):
    aggregator = aggregators.AGGREGATORS[name].build(aggregators.AGGREGATORS[name].settings(), 10)
    setup = setups.setup(fed_avg, MODEL, local_epochs=1, client_weighting="uniform", aggregator=aggregator)
    return fed_avg.build_fed_avg(setup)


@functools.cache
def evaluation_of(release):
    return evaluation.build_personalization_evaluation(
        MODEL, SGD, epochs=2, batch_size=4, strategies=STRATEGIES, release=release
    )


def test_an_evaluation_that_releases_aggregates_sends_one_sum_and_nothing_else():
    ((name, sent),) = aggregations(evaluation_of("aggregates"))
    assert name in SUMS
    # Per strategy and epoch a histogram and moments: no more, however many examples a client has.
    assert sent < 4 * (len(STRATEGIES) * 3 * (evaluation.HISTOGRAM_BINS + 12) + 12)
    assert evaluation_of("aggregates").type_signature.result.placement is tff.SERVER


def test_an_evaluation_that_releases_records_sends_nothing_to_the_server_within_the_computation():
    computation = evaluation_of("records")
    assert aggregations(computation) == []
    assert computation.type_signature.result.placement is tff.CLIENTS  # visible to a simulation, not to a server


@pytest.mark.parametrize("name", aggregators.AGGREGATORS)
def test_rounds_send_only_sums(name):
    found = aggregations(process_of(name).next)
    assert found
    # Compressed tensors are decoded one by one as they are added up.
    assert {uri for uri, _ in found} <= (SUMS | {"federated_aggregate"} if name == "compression" else SUMS)


def test_with_the_secure_aggregator_nothing_of_the_size_of_a_model_is_summed_in_the_clear():
    weights = sum(w.nbytes for w in MODEL.initial_weights[0])
    in_the_clear = [sent for uri, sent in aggregations(process_of("secure_sum").next) if uri == "federated_sum"]
    secure = [sent for uri, sent in aggregations(process_of("secure_sum").next) if uri != "federated_sum"]
    assert max(in_the_clear) <= 4 * 7  # counts of clients, examples and right answers, and the sum of losses
    assert max(secure) >= weights
    # The plain mean, to show that this can fail.
    plain = [sent for uri, sent in aggregations(process_of("mean").next) if uri == "federated_sum"]
    assert max(plain) >= weights


@pytest.mark.parametrize("name", aggregators.AGGREGATORS)
def test_bytes_of_a_client_are_those_of_its_model_and_of_a_few_numbers(name):
    found, weights = communication.of_process(process_of(name)), sum(w.nbytes for w in MODEL.initial_weights[0])
    few = 4 * 100
    assert weights <= found.down <= weights + few
    sent = 2 * weights if name == "secure_sum" else weights  # as integers of eight bytes
    assert sent <= found.up <= sent + few
    assert found.kept == 0


def test_bytes_of_values_of_unknown_size_are_not_known():
    assert communication.num_bytes([tff.TensorType(np.float32, [3, 2]), tff.TensorType(np.bool_)]) == 25
    assert communication.num_bytes([tff.TensorType(np.float32, [None, 2])]) is None
    assert communication.num_bytes([tff.TensorType(np.str_)]) is None
    assert communication.num_bytes([]) == 0
