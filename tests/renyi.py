"""ε by Rényi accounting in a few lines, from the papers' formulas, to check the program's report."""

import math

import numpy as np


def epsilon(rdp, orders, rounds, delta):
    """The least ε over the orders; from RDP to (ε, δ) by Canonne et al. (2020), Proposition 12."""
    return min(rounds * rdp(a) + math.log((a - 1) / a) - (math.log(delta) + math.log(a)) / (a - 1) for a in orders)


def poisson_sampling(q, z, order):
    """RDP of one cohort, Mironov et al. (2019), arXiv 1908.10530, equation 3 with section 3.3, at an integer order."""
    terms = [
        math.log(math.comb(order, k)) + k * math.log(q) + (order - k) * math.log1p(-q) + (k * k - k) / (2 * z * z)
        for k in range(order + 1)
    ]
    return np.logaddexp.reduce(terms) / (order - 1)


def sampling_without_replacement(q, z, order):
    """RDP of one cohort, Wang et al. (2019), arXiv 1808.00087, Theorem 27 for Gaussian noise, at an integer order."""

    def differences(n):  # B(n): (i − 1) ε(i) is i (i − 1) / 2z²
        return sum((-1) ** i * math.comb(n, i) * math.exp(i * (i - 1) / (2 * z * z)) for i in range(n + 1))

    e = math.exp(1 / z**2)  # e^ε(2)
    total = 1 + q**2 * math.comb(order, 2) * min(4 * (e - 1), 2 * e)
    for j in range(3, order + 1):
        bound = math.sqrt(differences(2 * (j // 2)) * differences(2 * ((j + 1) // 2)))
        total += 4 * q**j * math.comb(order, j) * bound
    return math.log(total) / (order - 1)
