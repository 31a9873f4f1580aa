"""Modules that few runs need are imported at first use, and then are the real modules."""

import subprocess
import sys

_PROGRAM = """
import sys
import tff_personalization
import tensorflow_federated as tff
heavy = ("jax.numpy", "tensorflow_probability", "tensorflow_privacy.privacy", "dp_accounting.rdp")
assert not [name for name in heavy if name in sys.modules], "imported before use"
factory = tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(1.0, 10.0, 1.0)
import numpy as np
factory.create(tff.TensorType(np.float32, [2]))
import jax
assert not isinstance(np.ones(2), jax.Array)
from dp_accounting import rdp
import dp_accounting
assert issubclass(dp_accounting.GaussianDpEvent, dp_accounting.DpEvent) and rdp.RdpAccountant
assert float(jax.numpy.ones(2).sum()) == 2 and isinstance(jax.numpy.ones(2), jax.Array)
assert callable(tff.jax.computation)
assert sys.modules["tensorflow_privacy"].DPQuery.__module__ == "tensorflow_privacy.privacy.dp_query.dp_query"
"""


def test_heavy_modules_are_imported_when_they_are_first_used():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
