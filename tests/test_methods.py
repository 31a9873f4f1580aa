"""Shared parts of methods: cohorts, and clients that drop out or are slow."""

import collections

import numpy as np
import pytest

from tests import numpy_oracle, setups
from tff_personalization.algorithms import fed_avg, method
from tff_personalization.models import emnist_cnn
from tff_personalization.tasks import archives, client_arrays

SETTINGS = {"clients_per_round": 8, "straggler_step_fraction": 0.25, "local_epochs": 3, "batch_size": 3}


def make_setup(**settings):
    rng = np.random.default_rng(0)
    writer = np.repeat([f"w{i:02d}" for i in range(30)], 5)
    images = rng.integers(0, 256, (len(writer), 28, 28), np.uint8)
    labels = rng.integers(0, 3, len(writer)).astype(np.int32)
    archive = archives.Archive.from_names(images, labels, writer, np.arange(len(writer)) % 5 == 0, ("a", "b", "c"), "")
    train, _ = client_arrays.to_client_data(archive)
    return method.RunSetup(
        emnist_cnn.build_linear(3, np.random.default_rng(1)),
        fed_avg.Settings(**{**SETTINGS, "client": setups.sgd(), "server": setups.sgd(1.0), **settings}),
        shuffle=False,
        train_data=train,
        train_clients=tuple(train.client_ids),
        seed=5,
        build_model=lambda rng: emnist_cnn.build_linear(3, rng),
    )


def shares(cohort):
    return [float(next(iter(value))["step_share"]) for value in cohort.values]


def test_without_faults_a_cohort_is_whole_and_in_time():
    cohort = make_setup().cohorts()(1)
    assert len(set(cohort.members)) == len(cohort.values) == 8
    assert (cohort.dropped, cohort.stragglers, shares(cohort)) == (0, 0, 8 * [1.0])


def test_clients_drop_out_of_the_cohort_that_there_would_be_without():
    whole = make_setup().cohorts()
    with_dropout = make_setup(client_dropout_probability=0.3).cohorts()
    dropped = 0
    for round_number in range(1, 201):
        all_members, cohort = whole(round_number).members, with_dropout(round_number)
        assert [member for member in all_members if member in cohort.members] == list(cohort.members)
        assert cohort.dropped == 8 - len(cohort.members) == 8 - len(cohort.values)
        dropped += cohort.dropped
    assert dropped / (200 * 8) == pytest.approx(0.3, abs=0.04)


def test_a_round_has_a_client_even_if_all_drop_out():
    cohort = make_setup(client_dropout_probability=1.0).cohorts()
    reporting = collections.Counter(len(cohort(round_number).members) for round_number in range(1, 20))
    assert reporting == {1: 19}


def test_stragglers_get_their_share_of_steps_done():
    cohorts = make_setup(straggler_probability=0.4, client_dropout_probability=0.2).cohorts()
    slow = reported = 0
    for round_number in range(1, 41):
        cohort = cohorts(round_number)
        assert set(shares(cohort)) <= {1.0, 0.25}
        assert cohort.stragglers == shares(cohort).count(0.25)
        slow += cohort.stragglers
        reported += len(cohort.members)
    assert slow / reported == pytest.approx(0.4, abs=0.1)


@pytest.mark.usefixtures("worker")
def test_a_round_closes_with_what_reported_and_what_stragglers_got_done():
    """Only clients that report have weight; a straggler's delta is that of its first steps."""
    setup = make_setup(straggler_probability=0.5, client_dropout_probability=0.4)
    cohort = setup.cohorts()(2)
    assert cohort.dropped
    assert 0 < cohort.stragglers < len(cohort.members)
    process = fed_avg.build_fed_avg(setup)
    output = process.next(process.initialize(), cohort.values)
    theta = [w.astype(np.float64) for w in setup.model.initial_weights[0]]
    ends = []
    for member, share in zip(cohort.members, shares(cohort), strict=True):
        images, labels = setup.train_data.examples(member)
        steps = int(np.ceil(share * 3 * np.ceil(len(labels) / 3)))
        ends.append(numpy_oracle.local_sgd(theta, images, labels, 0.1, 3, steps)[-1])
    trained = process.get_model_weights(output.state).trainable
    for after, *parts in zip(trained, *ends, strict=True):
        np.testing.assert_allclose(after, np.mean(parts, axis=0), atol=1e-5)
    assert output.metrics["client_work"]["clients"] == len(cohort.members)
