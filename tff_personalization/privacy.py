"""The guarantee of `--aggregator=dp`: the trained model's (ε, δ) by Rényi accounting (Mironov, 2017, arXiv 1702.07476).

There are two figures, because this program samples cohorts in another way than most papers assume:

- `epsilon` holds for this program: it draws cohorts of M of N clients without replacement. Neighbours differ in one
  client's data, which any other data may replace. Replacing a client moves the sum of clipped deltas by up to 2C, where
  adding one moves it by C. So the noise multiplier counts as z/2 (Wang, Balle, Kasiviswanathan, 2019, arXiv
  1808.00087).
- `epsilon_poisson` is the figure of most papers. Each client is in each cohort independently with probability M/N, and
  neighbours differ in the presence of one client (Mironov, Talwar, Zhang, 2019, arXiv 1908.10530). It does not hold
  here.

Both protect one client's whole data (user level) in the input of the server optimizer, and so in the model and the
learnt clipping norm. They do not cover the metrics of rounds and evaluations, which are exact sums over clients.
"""

import math
from typing import Any

import dp_accounting

SAMPLING = "cohorts of fixed size without replacement; neighbours replace one client"
SAMPLING_POISSON = "Poisson sampling of clients; neighbours add or remove one client"


def default_delta(population: int) -> float:
    """δ = N^−1.1 for N train clients: less than 1/N, as in McMahan et al. (2018), arXiv 1710.06963, Table 1."""
    return population**-1.1


def epsilon_of_fixed_cohorts(noise_multiplier: float, cohort: int, population: int, rounds: int, delta: float) -> float:
    """ε after `rounds` cohorts drawn without replacement. Neighbours replace one client. Infinite without noise."""
    accountant = dp_accounting.rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    event = dp_accounting.GaussianDpEvent(noise_multiplier / 2)
    sampled = dp_accounting.SampledWithoutReplacementDpEvent(population, cohort, event)
    return _epsilon(accountant, sampled, noise_multiplier, rounds, delta)


def epsilon_of_poisson_cohorts(
    noise_multiplier: float, cohort: int, population: int, rounds: int, delta: float
) -> float:
    """ε after `rounds` cohorts with each client at probability cohort/population. Neighbours add or remove one."""
    accountant = dp_accounting.rdp.RdpAccountant()
    event = dp_accounting.GaussianDpEvent(noise_multiplier)
    sampled = dp_accounting.PoissonSampledDpEvent(cohort / population, event)
    return _epsilon(accountant, sampled, noise_multiplier, rounds, delta)


def _epsilon(
    accountant: dp_accounting.PrivacyAccountant,
    event: dp_accounting.DpEvent,
    noise_multiplier: float,
    rounds: int,
    delta: float,
) -> float:
    if rounds == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    accountant.compose(event, rounds)
    return float(accountant.get_epsilon(delta))


def spent(noise_multiplier: float, cohort: int, population: int, rounds: int, delta: float | None) -> dict[str, Any]:
    """The privacy loss of a run, for summary.json. An infinite ε is None there.

    Args:
        noise_multiplier: z, of the sum and the clipping norm's count together.
        cohort: M, clients a round.
        population: N, train clients.
        rounds: rounds of training.
        delta: δ; None for `default_delta`.
    """
    delta = default_delta(population) if delta is None else delta
    arguments = (noise_multiplier, cohort, population, rounds, delta)
    figures = {
        "epsilon": epsilon_of_fixed_cohorts(*arguments),
        "epsilon_poisson": epsilon_of_poisson_cohorts(*arguments),
    }
    return {
        **{name: value if math.isfinite(value) else None for name, value in figures.items()},
        "delta": delta,
        "noise_multiplier": noise_multiplier,
        "clients_per_round": cohort,
        "train_clients": population,
        "sampling": SAMPLING,
        "sampling_poisson": SAMPLING_POISSON,
    }
