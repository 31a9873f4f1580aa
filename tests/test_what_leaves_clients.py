"""What leaves clients, by the computations' types: only sums, in rounds and evaluations that release aggregates."""

import functools

import numpy as np
import pytest
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.compiler import building_blocks, transformation_utils

from tests import setups
from tff_personalization import aggregators
from tff_personalization.algorithms import fed_avg
from tff_personalization.models import emnist_cnn
from tff_personalization.personalization import evaluation

SGD = tff.learning.optimizers.build_sgdm(0.1)
MODEL = emnist_cnn.build_linear(4, np.random.default_rng(0))
SUMS = {"federated_sum", "federated_secure_sum", "federated_secure_sum_bitwidth", "federated_secure_modular_sum"}
STRATEGIES = ("fine_tune", "fine_tune_head", "local_only")


def aggregations(computation):
    """Each step of a computation from clients to the server: its name, and its argument's type."""
    found = []

    def look(block):
        if isinstance(block, building_blocks.Intrinsic):
            type_ = block.type_signature
            arguments = tff.types.StructType([type_.parameter]) if type_.parameter is not None else []
            at_clients = tff.types.contains(
                tff.types.StructType(list(arguments)),
                lambda t: isinstance(t, tff.FederatedType) and t.placement is tff.CLIENTS,
            )
            at_server = tff.types.contains(
                type_.result, lambda t: isinstance(t, tff.FederatedType) and t.placement is tff.SERVER
            )
            if at_clients and at_server:
                found.append((block.uri, type_.parameter))
        return block, False

    transformation_utils.transform_postorder(computation.to_building_block(), look)
    return found


def size(type_):
    """The numbers in a value of a type."""
    count = 0

    def add(t):
        nonlocal count
        if isinstance(t, tff.TensorType):
            count += int(np.prod(t.shape))
        return False

    tff.types.contains(type_, add)
    return count


@functools.cache
def round_of(name):
    aggregator = aggregators.AGGREGATORS[name].build(aggregators.AGGREGATORS[name].settings(), 10)
    setup = setups.setup(fed_avg, MODEL, local_epochs=1, client_weighting="uniform", aggregator=aggregator)
    return fed_avg.build_fed_avg(setup).next


@functools.cache
def evaluation_of(release):
    return evaluation.build_personalization_evaluation(
        MODEL, SGD, epochs=2, batch_size=4, strategies=STRATEGIES, release=release
    )


def test_an_evaluation_that_releases_aggregates_sends_one_sum_and_nothing_else():
    ((name, type_),) = aggregations(evaluation_of("aggregates"))
    assert name in SUMS
    # Per strategy and epoch a histogram and moments: no more, however many examples a client has.
    assert size(type_) < len(STRATEGIES) * 3 * (evaluation.HISTOGRAM_BINS + 12) + 12
    assert evaluation_of("aggregates").type_signature.result.placement is tff.SERVER


def test_an_evaluation_that_releases_records_sends_nothing_to_the_server_within_the_computation():
    computation = evaluation_of("records")
    assert aggregations(computation) == []
    assert computation.type_signature.result.placement is tff.CLIENTS  # visible to a simulation, not to a server


@pytest.mark.parametrize("name", aggregators.AGGREGATORS)
def test_rounds_send_sums_alone(name):
    found = aggregations(round_of(name))
    assert found
    # Compressed tensors are decoded one by one as they are added up.
    assert {uri for uri, _ in found} <= (SUMS | {"federated_aggregate"} if name == "compression" else SUMS)


def test_with_the_secure_aggregator_nothing_of_the_size_of_a_model_is_summed_in_the_clear():
    weights = sum(w.size for w in MODEL.initial_weights[0])
    in_the_clear = [size(type_) for uri, type_ in aggregations(round_of("secure_sum")) if uri == "federated_sum"]
    secure = [size(type_) for uri, type_ in aggregations(round_of("secure_sum")) if uri != "federated_sum"]
    assert max(in_the_clear) <= 6  # counts of clients, examples and right answers, and the sum of losses
    assert max(secure) >= weights
    # The plain mean, to show that this can fail.
    plain = [size(type_) for uri, type_ in aggregations(round_of("mean")) if uri == "federated_sum"]
    assert max(plain) >= weights
