"""ε against closed forms."""

import numpy as np
import pytest

from tests import renyi
from tff_personalization import privacy

ORDERS = np.concatenate([np.arange(1.01, 11, 0.01), np.arange(11, 512)])


def epsilon_of_gaussians(noise_multiplier, rounds, delta):
    """All clients in each round: RDP of order a is T a / (2 z²)."""
    return renyi.epsilon(lambda order: order / (2 * noise_multiplier**2), ORDERS, rounds, delta)


@pytest.mark.parametrize(("noise_multiplier", "rounds"), [(5.0, 10), (20.0, 100), (2.0, 1)])
def test_cohorts_of_everybody_are_gaussian_mechanisms(noise_multiplier, rounds):
    arguments = (noise_multiplier, 30, 30, rounds, 1e-5)
    expected = epsilon_of_gaussians(noise_multiplier, rounds, 1e-5)
    assert privacy.epsilon_of_poisson_cohorts(*arguments) == pytest.approx(expected, rel=2e-3)
    # A replaced client moves the sum twice as far as an added one.
    expected = epsilon_of_gaussians(noise_multiplier / 2, rounds, 1e-5)
    assert privacy.epsilon_of_fixed_cohorts(*arguments) == pytest.approx(expected, rel=2e-3)


def test_poisson_cohorts_as_papers_count_them():
    """The setting of the MNIST tutorial of TensorFlow Privacy: 60,000 examples, batches of 256, z = 1.1, 60 epochs."""
    rounds, q = 60 * 60_000 // 256, 256 / 60_000
    expected = renyi.epsilon(lambda order: renyi.poisson_sampling(q, 1.1, order), range(2, 64), rounds, 1e-5)
    found = privacy.epsilon_of_poisson_cohorts(1.1, 256, 60_000, rounds, 1e-5)
    assert found <= expected * (1 + 1e-6)  # fractional orders may do better
    assert found == pytest.approx(expected, rel=0.01)


def test_smaller_cohorts_more_noise_and_fewer_rounds_spend_less():
    for epsilon in (privacy.epsilon_of_fixed_cohorts, privacy.epsilon_of_poisson_cohorts):
        reference = epsilon(2.0, 20, 1000, 100, 1e-5)
        for less in ((4.0, 20, 1000, 100), (2.0, 10, 1000, 100), (2.0, 20, 1000, 50)):
            assert epsilon(*less, 1e-5) < reference


def test_without_noise_nothing_is_promised_and_without_rounds_nothing_is_spent():
    spent = privacy.spent(0.0, 20, 1000, 100, None)
    assert spent["epsilon"] is None
    assert spent["epsilon_poisson"] is None
    assert spent["delta"] == pytest.approx(1000**-1.1)
    assert privacy.spent(0.0, 20, 1000, 0, 1e-6)["epsilon"] == 0
